"""Backbones of torchvision, with the weights that its enums recommend."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode

from tl_experiments.models.backbone import DEFAULT_WEIGHTS, SMALLEST, Backbone, choose_image_size
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.weights import (
    OFFLINE,
    as_state_dict,
    first_line,
    load_weights,
    read_weights,
    require_bounded,
)
from tl_experiments.runtime.errors import SettingError, WeightsError
from tl_experiments.runtime.seeding import seeded


@dataclass(frozen=True)
class Architecture:
    """How torchvision builds a network and where its classification layer sits."""

    head: str  # name of the last linear layer
    stages: tuple[str, ...]  # names of the layers that end a stage each: before the resolution falls, or a block
    arguments: tuple[tuple[str, object], ...] = ()
    auxiliary: tuple[str, ...] = ()  # layers that only training from scratch needs
    fixed: bool = False  # takes one image size only


_RESNET = ("layer1", "layer2", "layer3", "layer4")
ARCHITECTURES = {
    "resnet18": Architecture(head="fc", stages=_RESNET),
    "resnet50": Architecture(head="fc", stages=_RESNET),
    "vgg16": Architecture(
        head="classifier.6",
        stages=("features.4", "features.9", "features.16", "features.23", "features.30", "classifier"),
    ),
    # transform_input undoes the enum's normalisation in favour of the one that the weights were trained with.
    "inception_v3": Architecture(
        head="fc",
        stages=("maxpool1", "maxpool2", "Mixed_5d", "Mixed_6e", "Mixed_7c"),
        arguments=(("aux_logits", False), ("transform_input", True), ("init_weights", True)),
        auxiliary=("AuxLogits",),
    ),
    "mobilenet_v3_large": Architecture(
        head="classifier.3",
        stages=("features.1", "features.3", "features.6", "features.12", "features.16"),
    ),
    "vit_b_16": Architecture(
        head="heads.head",
        stages=tuple(f"encoder.layers.encoder_layer_{layer}" for layer in range(12)),
        fixed=True,
    ),
}


def torchvision_backbone(
    *, name: str, weights: str | None, image_size: int | None, preferred_size: int | None, seed: int
) -> Backbone:
    """Build a backbone: everything of the network but its last linear layer.

    Args:
        name: a key of ARCHITECTURES.
        weights: default (downloaded once into PyTorch's cache), None (random) or the path of a file.
        image_size: that the user wants, or None.
        preferred_size: that the dataset wants, or None.
        seed: of random weights.

    Raises:
        SettingError: no such name, or a size that the architecture does not take.
        WeightsError: the weights cannot be downloaded or read, or do not fit.
    """
    if name not in ARCHITECTURES:
        raise SettingError(f"backbone.name={name}: expected one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    enum = models.get_model_weights(name)["DEFAULT"]
    size = choose_image_size(
        name=name,
        own=enum.transforms().crop_size[0],
        wanted=image_size,
        preferred=preferred_size,
        smallest=max(SMALLEST, *enum.meta["min_size"]),
        fixed=architecture.fixed,
    )
    with seeded(seed):
        body = models.get_model(name, weights=None, **dict(architecture.arguments))
    feature_dim: int = body.get_submodule(architecture.head).in_features  # type: ignore[assignment]
    body.set_submodule(architecture.head, nn.Identity())
    heads = (architecture.head, *architecture.auxiliary)
    if weights is None:
        weights_id = f"random(seed={seed})"
    elif weights == DEFAULT_WEIGHTS:
        load_weights(body, _download(enum), heads=heads, source=DEFAULT_WEIGHTS)
        weights_id = str(enum)
    else:
        load_weights(body, read_weights(Path(weights).expanduser()), heads=heads, source=weights)
        weights_id = f"file:{Path(weights).name}"
    return Backbone(
        body,
        name=name,
        feature_dim=feature_dim,
        input_spec=_input_spec(enum, size),
        weights_id=weights_id,
        stages=architecture.stages,
    )


def _input_spec(enum: models.WeightsEnum, size: int) -> InputSpec:
    preset = enum.transforms()
    return InputSpec(
        size=size,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=InterpolationMode(preset.interpolation).value,
        crop_pct=preset.crop_size[0] / preset.resize_size[0],
    )


def _download(enum: models.WeightsEnum) -> dict[str, torch.Tensor]:
    """Take the weights from PyTorch's cache, or download them into it."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(enum.url).path).name
    try:
        if file.is_file():
            require_bounded(file)
        loaded = enum.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # no network, another hash, or a damaged pickle and whatever it makes of itself
        raise WeightsError(
            f"backbone.weights=default: could not get {enum.url} ({first_line(error)}); "
            f"download it by other means and put it at {file}, or use backbone.weights=PATH; {OFFLINE}"
        ) from error
    return as_state_dict(loaded, source=str(file))
