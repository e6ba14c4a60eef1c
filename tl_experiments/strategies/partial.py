"""Partial fine-tuning: the last stages of the backbone are trained, the first ones stay frozen.

What the frozen stages say of an image does not change, so it is computed once where every epoch sees the same images
(Yosinski et al. 2014 freeze by depth; Nakandala & Kumar 2022, "Nautilus", keep what frozen layers say).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import to_device
from tl_experiments.features.activations import activations, activations_bytes
from tl_experiments.features.extract import Extractor, make_extractor
from tl_experiments.models.model import Model, classify
from tl_experiments.models.param_groups import param_groups
from tl_experiments.models.stages import Halves, cut
from tl_experiments.strategies.base import Materials, Phase, Workload, batchnorm_modules, running_statistics
from tl_experiments.strategies.one_member import OneMember


class LastStages(nn.Module):
    """Activations (1, B, ...) of any dtype → logits (1, B, C): the trained stages and a head."""

    def __init__(self, suffix: nn.Module, head: nn.Linear, *, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.suffix = suffix
        self.head = head
        self._memory_format = memory_format

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        inputs = activations[0].float()
        if inputs.ndim == 4:  # of convolutions; tokens have no layout
            inputs = inputs.contiguous(memory_format=self._memory_format)
        return classify(self.head, self.suffix(inputs))[None]


@dataclass(frozen=True)
class Partial:
    """Train the last stages and a new head.

    Attributes:
        num_stages: how many of the backbone's are trained; at least one stays frozen.
        batchnorm: of the trained stages: train lets the statistics follow the new data; eval keeps them as pretrained.
        backbone_lr_scale: the trained stages' lr is this times the head's.
    """

    num_stages: int
    batchnorm: Literal["eval", "train"]
    backbone_lr_scale: float

    @property
    def trains_backbone(self) -> bool:
        return True

    def uses_features(self, augmentation: object) -> bool:  # noqa: ARG002 - the protocol's signature
        return False

    def prepare(self, materials: Materials) -> Workload:
        """Cut the backbone and put a new head behind it; one member at a time."""
        model = materials.new_model()
        halves = cut(materials.backbone.requires_grad_(False), num_trained=self.num_stages)
        halves.suffix.requires_grad_(True)
        if materials.augmentation.is_random:
            phase = self._on_images(materials, halves, model, reason="augmentation is random")
        else:
            phase = self._on_still_images(materials, halves, model)
        prefix = "backbone.body."
        return Workload(
            phases=(phase,),
            groups=param_groups(
                model, lr_scales={"backbone": self.backbone_lr_scale, "head": 1.0}, has_member_axis=False
            ),
            deployables=(model,),
            trained=frozenset(f"{prefix}{name}" for name, _ in halves.suffix.named_parameters())
            | (running_statistics(halves.suffix, prefix=prefix) if self.batchnorm == "train" else frozenset())
            | {"head.weight", "head.bias"},
        )

    def _held(self, halves: Halves) -> tuple[nn.Module, ...]:
        return batchnorm_modules(halves.suffix) if self.batchnorm == "eval" else ()

    def _on_still_images(self, materials: Materials, halves: Halves, model: Model) -> Phase:
        """Keep the activations where they fit."""
        images, compute = materials.images, materials.compute
        size = materials.backbone.input_spec.size
        as_in_training = replace(compute, infer=compute.train)  # what is kept is what each epoch would compute
        extractor = make_extractor(halves.prefix, size=size, normalise=materials.normalise, compute=as_in_training)
        needed = activations_bytes(extractor, [images.train, images.val, images.test])
        if needed <= materials.memory_bytes:
            return self._on_activations(materials, halves, model, extractor)
        limit = f"runtime.image_memory_gb={materials.memory_bytes / 1e9:g}"
        reason = f"their activations take {needed / 1e9:.1f} GB ({limit})"
        return self._on_images(materials, halves, model, reason=reason)

    def _on_activations(self, materials: Materials, halves: Halves, model: Model, extractor: Extractor) -> Phase:
        def batches(images: Images, batch_size: int, seeds: tuple[int, ...] | None) -> FeatureBatches:
            return FeatureBatches(
                features=activations(extractor, images, work=materials.watch.work)[None],
                labels=to_device(images.labels, materials.compute.device),
                batch_size=batch_size,
                num_members=1,
                seeds=seeds,
            )

        images, compute = materials.images, materials.compute
        return Phase(
            name="partial",
            module=LastStages(halves.suffix, model.head, memory_format=compute.memory_format),
            held_in_eval=self._held(halves),
            epochs=materials.epochs,
            train=batches(images.train, materials.batch_size, materials.seeds),
            val=batches(images.val, compute.infer_batch_size, None),
            test=batches(images.test, compute.infer_batch_size, None),
            train_precision=compute.train,
            infer_precision=compute.infer,
        )

    def _on_images(self, materials: Materials, halves: Halves, model: Model, *, reason: str) -> Phase:
        materials.watch.notice(f"the frozen stages run in every epoch, because {reason}")
        return materials.image_phase(
            "partial",
            OneMember(model),
            held_in_eval=(halves.prefix, *self._held(halves)),
            train_precision=materials.compute.train,
        )
