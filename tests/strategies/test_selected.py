"""Where parameters are chosen, they and the head learn, and every layer of which nothing is chosen stands still."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.watching import Notes
from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.bias_only import BiasOnly
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.norm_only import NormOnly
from tl_experiments.strategies.partial import Partial

Materialise = Callable[..., Materials]
Train = Callable[..., None]
Moved = Callable[[Workload, Callable[[], object]], set[str]]
Statistics = Callable[[Workload], set[str]]
HEAD = {"head.weight", "head.bias"}


def strategy(kind: type[Strategy] = Partial, *, batchnorm: Any = "train", **settings: Any) -> Any:
    rest = {"num_stages": None} if kind is Partial else {}
    return kind(batchnorm=batchnorm, backbone_lr_scale=1.0, layer_decay=1.0, l2_sp=0.0, **(rest | settings))


def vgg16() -> Backbone:
    """Its layers without their 134 million values, which nothing here computes with."""
    with torch.device("meta"):
        return torchvision_backbone(name="vgg16", weights=None, image_size=32, preferred_size=None, seed=0)


def body_names(names: set[str]) -> set[str]:
    return {name.removeprefix("backbone.body.") for name in names - HEAD}


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["conv_stem.weight", "bn1.*"], False),  # the first layers, as where pixels differ
        (["blocks.3.*.bn1.*", "blocks.4.0.conv_pw.weight"], True),  # from the middle on; of some layers, half
    ],
    ids=["first", "middle"],
)
def test_what_matches_learns_and_nothing_else_moves(
    patterns: list[str], kept: bool, batchnorm: Any, materialise: Materialise, train: Train, moved: Moved,
    statistics: Statistics,
) -> None:  # fmt: skip
    workload = strategy(train=patterns, batchnorm=batchnorm).prepare(materialise(epochs=2))
    [phase] = workload.phases
    assert isinstance(phase.open().train, FeatureBatches if kept else ImageBatches)
    frozen = workload.frozen_sha256()
    changed = moved(workload, lambda: train(workload))
    assert changed == workload.trained
    assert workload.frozen_sha256() == frozen
    weights = body_names(changed - statistics(workload))
    owners = {name.rpartition(".")[0] for name in weights}
    if kept:
        assert owners == {"blocks.3.0.bn1", "blocks.4.0.conv_pw"}
    else:
        assert weights == {"conv_stem.weight", "bn1.weight", "bn1.bias"}
    follow = {name.rpartition(".")[0] for name in body_names(changed & statistics(workload))}
    assert follow == ({owner for owner in owners if "bn" in owner} if batchnorm == "train" else set())


def test_the_last_stages_by_their_names_are_the_last_stages_by_their_number(
    materialise: Materialise, train: Train
) -> None:
    by_name = strategy(train=["blocks.4.*", "conv_head.*", "bn2.*"]).prepare(materialise(epochs=2))
    by_number = strategy(num_stages=1, train=None).prepare(materialise(epochs=2))
    assert by_name.trained == by_number.trained
    for workload in (by_name, by_number):
        train(workload)
    assert by_name.weights_sha256(0) == by_number.weights_sha256(0)


def test_dropout_of_frozen_layers_is_off_and_of_trained_ones_on(materialise: Materialise) -> None:
    backbone = vgg16()
    workload = strategy(train=["features.0.*"]).prepare(materialise(backbone=backbone))
    [phase] = workload.phases
    phase.module.train()
    for held in phase.held_in_eval:
        held.eval()
    assert backbone.body.features[0].training
    assert not any(layer.training for layer in backbone.body.modules() if isinstance(layer, nn.Dropout))


@pytest.mark.parametrize("kind", [NormOnly, BiasOnly], ids=["norm_only", "bias_only"])
def test_norms_or_biases_learn_alone(
    kind: type[Strategy], materialise: Materialise, train: Train, moved: Moved, statistics: Statistics
) -> None:
    workload = strategy(kind, batchnorm="eval").prepare(materialise())
    changed = moved(workload, lambda: train(workload))
    assert changed == workload.trained
    layers = dict(workload.deployables[0].named_modules())
    norms = {name for name, layer in layers.items() if isinstance(layer, nn.BatchNorm2d)}
    biases = {f"{name}.bias" for name, layer in layers.items() if getattr(layer, "bias", None) is not None}
    assert {f"{name}.bias" for name in norms} < biases - HEAD, "convolutions have some too"
    assert changed == HEAD | (
        biases if kind is BiasOnly else {f"{name}.{end}" for name in norms for end in ("weight", "bias")}
    )
    follows = strategy(kind, batchnorm="train").prepare(materialise())
    assert follows.trained == workload.trained | statistics(workload)


@pytest.mark.parametrize(
    ("kind", "told"), [(NormOnly, "has no normalisation layers to train"), (BiasOnly, "has no biases to train")]
)
def test_a_backbone_that_has_none_is_told(kind: type[Strategy], told: str, materialise: Materialise) -> None:
    backbone = vgg16()
    if kind is BiasOnly:
        for layer in backbone.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.bias = None
    with pytest.raises(SettingError, match=told):
        strategy(kind).check(lambda: backbone)
    with pytest.raises(SettingError, match=told):
        strategy(kind).prepare(materialise(backbone=backbone))


def test_a_network_that_cannot_be_cut_there_runs_whole_and_says_so(
    materialise: Materialise, notes: Notes, train: Train, moved: Moved
) -> None:
    backbone = timm_backbone(name="densenet121", weights=None, image_size=32, preferred_size=None, seed=0)
    # Where the second ends, more than one tensor passes.
    backbone.stages = ("features.conv0", "features.denseblock1.denselayer2", "features.denseblock4")
    pattern = ["features.denseblock4.denselayer16.*"]
    workload = strategy(train=pattern).prepare(materialise(backbone=backbone))
    assert "cannot be cut" in notes.notices[0]
    frozen = workload.frozen_sha256()
    assert moved(workload, lambda: train(workload)) == workload.trained
    assert workload.frozen_sha256() == frozen


def test_gradients_of_what_is_frozen_are_not_computed(materialise: Materialise, train: Train) -> None:
    workload = strategy(train=["blocks.3.*"]).prepare(materialise())
    train(workload)
    own = dict(workload.deployables[0].named_parameters())
    assert {name for name, parameter in own.items() if parameter.requires_grad} == workload.phases[0].trained
    assert all(parameter.grad is None for parameter in own.values())
    assert torch.is_grad_enabled()
