"""LoRA trains additions and the head alone, and what is kept is the plain network with the additions in its weights."""

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torchvision.models import vision_transformer

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.lora import Lora
from tl_experiments.strategies.materials import Materials

Statistics = Callable[[Workload], set[str]]
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "resnet18": torchvision_backbone,
    "vit_b_16": torchvision_backbone,  # whose projections are one tensor of nn.MultiheadAttention
    "vit_tiny_patch16_224": timm_backbone,  # where they are linear layers
}


@pytest.fixture(autouse=True)
def shallow_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers of torchvision's ViT show what twelve do."""
    whole = vision_transformer._vision_transformer
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **given: whole(**{**given, "num_layers": 2}))


def lora(**changes: object) -> Lora:
    defaults = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": None, "backbone_lr_scale": 1.0}
    return Lora(**{**defaults, **changes})  # type: ignore[arg-type]


def random_weights(name: str) -> Backbone:
    return BACKBONES[name](name=name, weights=None, image_size=None, preferred_size=32, seed=0).eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_additions_are_trained_and_merged_into_the_plain_network(
    name: str, materialise: Callable[..., Materials]
) -> None:
    materials = materialise(backbone=random_weights(name))
    tensors = {key: tensor.clone() for key, tensor in materials.backbone.state_dict().items()}
    size = materials.backbone.input_spec.size
    images = torch.linspace(-2, 2, 2 * 3 * size * size).reshape(2, 3, size, size)
    before = materials.backbone.eval()(images)
    workload = lora().prepare(materials)
    [model] = workload.deployables
    frozen = workload.frozen_sha256()
    torch.testing.assert_close(model.eval().backbone(images), before)  # additions begin as zero
    parameters = [parameter.requires_grad_() for group in workload.groups for parameter in group.params]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    assert workload.frozen_sha256() == frozen
    answer = model(images)
    assert not torch.allclose(model.backbone(images), before, rtol=1e-4)
    kept = workload.finish(model)
    assert {*kept.backbone.state_dict()} == {*tensors}
    torch.testing.assert_close(kept(images), answer, atol=1e-5, rtol=1e-5)


def test_statistics_stay_and_all_else_that_is_new_moves(
    materialise: Callable[..., Materials],
    statistics: Statistics,
    train: Callable[..., None],
    moved: Callable[[Workload, Callable[[], object]], set[str]],
) -> None:
    workload = lora(dropout=0.1).prepare(materialise(epochs=2))
    changed = moved(workload, lambda: train(workload))
    assert changed == workload.trained
    assert all("lora_" in name or name.startswith("head.") for name in changed)
    assert statistics(workload)
    assert not statistics(workload) & changed


def test_what_is_drawn_is_a_function_of_the_seed(materialise: Callable[..., Materials]) -> None:
    before = torch.get_rng_state()
    digests = [lora().prepare(materialise(seeds=(seed,))).weights_sha256(0) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_rate_of_additions_may_be_another(materialise: Callable[..., Materials]) -> None:
    groups = lora(backbone_lr_scale=3.0).prepare(materialise()).groups
    assert {group.name.partition("/")[0]: group.lr_scale for group in groups} == {"lora": 3.0, "head": 1.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ["*.nothing"]}, r"strategy\.targets: \*\.nothing matches no linear layer"),
        ({"targets": ["*conv_dw"]}, "is a grouped convolution"),
    ],
)
def test_layers_that_cannot_have_one_are_refused(changes: dict[str, object], said: str, pretrained: Backbone) -> None:
    with pytest.raises(SettingError, match=said):
        lora(**changes).check(lambda: pretrained)


def test_patterns_choose(materialise: Callable[..., Materials]) -> None:
    workload = lora(targets=["*conv_pwl"]).prepare(materialise())
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in workload.trained if "lora" in name} == {"conv_pwl"}


def test_weights_that_are_changed_before_use_are_refused(materialise: Callable[..., Materials]) -> None:
    backbone = timm_backbone(name="nf_regnet_b0", weights=None, image_size=32, preferred_size=None, seed=0)
    with pytest.raises(SettingError, match="answers otherwise once additions are merged"):
        lora().prepare(materialise(backbone=backbone))


def test_dropout_that_cannot_be_had_is_refused() -> None:
    backbone = random_weights("vit_b_16")
    with pytest.raises(SettingError, match=r"strategy\.dropout=0\.1: .* expected 0"):
        lora(dropout=0.1).check(lambda: backbone)


def test_a_missing_library_is_told_in_one_line(pretrained: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingError, match="peft is not installed; install it by: pip install"):
        lora().check(lambda: pretrained)
