"""A model of which the last stages are trained and those before stand still, however many that are.

What the frozen stages say of an image does not change, so it is computed once where every epoch sees the same images
(Yosinski et al. 2014 freeze by depth; Nakandala & Kumar 2022, "Nautilus", keep what frozen layers say).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from tl_experiments.data.images import Images
from tl_experiments.features.activations import activations, activations_bytes
from tl_experiments.features.extract import Mirrored, View, make_extractor
from tl_experiments.models.model import Model, classify
from tl_experiments.models.stages import cut
from tl_experiments.runtime.precision import Compute
from tl_experiments.strategies.base import Phase, names
from tl_experiments.strategies.materials import Materials, SplitBatches
from tl_experiments.strategies.on_features import OneHead, frozen_phase, frozen_splits, open_features
from tl_experiments.strategies.one_member import OneMember

Held = Callable[[nn.Module], tuple[nn.Module, ...]]  # what is trained → layers of it that stay in eval mode


class LastStages(nn.Module):
    """Activations (1, B, ...) of any dtype → logits (1, B, C): the trained stages and a head."""

    def __init__(self, suffix: nn.Module, head: nn.Module, *, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.suffix = suffix
        self.head = head
        self._memory_format = memory_format

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        inputs = activations[0].float()
        if inputs.ndim == 4:  # of convolutions; tokens have no layout
            inputs = inputs.contiguous(memory_format=self._memory_format)
        return classify(self.head, self.suffix(inputs))[None]


def whole_phase(materials: Materials, model: Model, *, name: str, held: Held) -> Phase:
    """Train everything, on images."""
    return Phase(
        name=name,
        module=OneMember(model),
        trained=names(model),
        held_in_eval=held(model.backbone),
        epochs=materials.epochs,
        open=materials.open_images,
        train_precision=materials.compute.train,
        infer_precision=materials.compute.infer,
    )


def head_phase(materials: Materials, model: Model, *, name: str) -> Phase:
    """Train the head alone, on features that are kept, or on images where every epoch sees others."""
    return frozen_phase(
        materials,
        OneHead(model.head),
        name=name,
        trained=names(model.head, prefix="head."),
        features=lambda: open_features(materials),
        runs_because=materials.varies_because,
    )


def last_stages_phase(materials: Materials, model: Model, *, num_stages: int, name: str, held: Held) -> Phase:
    """Train the last stages and the head: on activations where they fit and stay the same, else on images.

    Raises:
        SettingError: no stage would be left to freeze, or the network cannot be cut there.
    """
    halves = cut(model.backbone, num_trained=num_stages)
    phase = Phase(
        name=name,
        module=OneMember(model),
        trained=names(halves.suffix, prefix="backbone.body.") | names(model.head, prefix="head."),
        held_in_eval=(halves.prefix, *held(halves.suffix)),
        epochs=materials.epochs,
        open=materials.open_images,
        train_precision=materials.compute.train,
        infer_precision=materials.compute.infer,
    )
    reason = materials.varies_because
    if reason is None:
        images = materials.images
        size = materials.backbone.input_spec.size
        seen = (2 if materials.mirrors else 1) * [images.val, images.test]
        needed = activations_bytes(halves.prefix, [images.train], size=size, compute=_as_in_training(materials))
        needed += activations_bytes(halves.prefix, seen, size=size, compute=materials.compute)
        if needed <= materials.memory_bytes:
            memory_format = materials.compute.memory_format
            return replace(
                phase,
                module=LastStages(halves.suffix, model.head, memory_format=memory_format),
                held_in_eval=held(halves.suffix),
                open=lambda: _open_activations(materials, halves.prefix),
            )
        limit = f"runtime.image_memory_gb={materials.memory_bytes / 1e9:g}"
        reason = f"their activations take {needed / 1e9:.1f} GB ({limit})"
    materials.watch.notice(f"{name}: the frozen stages run in every epoch, because {reason}")
    return phase


def _as_in_training(materials: Materials) -> Compute:
    """What is kept of the training images is what each epoch would compute."""
    return replace(materials.compute, infer=materials.compute.train)


def _open_activations(materials: Materials, prefix: nn.Module) -> SplitBatches:
    extract = partial(make_extractor, prefix, size=materials.backbone.input_spec.size, normalise=materials.normalise)
    compute = materials.compute
    training = extract(compute=_as_in_training(materials))
    inference = training if compute.train == compute.infer else extract(compute=compute)

    def outputs(images: Images, view: View | Mirrored | None) -> torch.Tensor:
        extractor = training if images is materials.images.train else inference
        return activations(extractor, images, work=materials.watch.work, view=view)

    return frozen_splits(materials, outputs, val_batch_size=compute.infer_batch_size)
