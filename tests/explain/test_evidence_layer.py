"""The layer that an explanation is read from: the last one that still has a grid worth looking at."""

import pytest
import torch
from torch import nn

from tl_experiments.explain.evidence_layer import EvidenceLayer, Layout, find_evidence_layer
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone


def found(backbone: Backbone, *, size: int) -> EvidenceLayer | None:
    return find_evidence_layer(backbone.eval(), torch.zeros(1, 3, size, size))


@pytest.mark.parametrize(
    ("name", "size", "layer", "layout", "side"),
    [
        ("test_efficientnet", 160, "bn2", Layout.CHANNELS_FIRST, 5),  # behind the last stage: its last convolution
        ("test_efficientnet", 64, "blocks.3", Layout.CHANNELS_FIRST, 4),  # whose last grid would be 2 x 2
        ("test_convnext", 160, "norm_pre", Layout.CHANNELS_FIRST, 5),
        ("test_mambaout", 160, "stages", Layout.CHANNELS_LAST, 5),
        ("test_vit", 160, "blocks.4", Layout.TOKENS, 10),  # what the last block gets; a class token before 100
        ("test_vit3", 160, "blocks.7", Layout.TOKENS, 10),  # no class token
    ],
)
def test_the_last_useful_grid_of_timms_networks(name: str, size: int, layer: str, layout: Layout, side: int) -> None:
    backbone = timm_backbone(name=name, weights=None, image_size=None, preferred_size=None, seed=0)
    assert found(backbone, size=size) == EvidenceLayer(backbone.body.get_submodule(layer), layout, side)


@pytest.mark.parametrize(("size", "layer", "side"), [(32, "layer2", 4), (64, "layer3", 4), (128, "layer4", 4)])
def test_a_small_image_is_read_before_its_grid_is_gone(size: int, layer: str, side: int) -> None:
    backbone = torchvision_backbone(name="resnet18", weights=None, image_size=size, preferred_size=None, seed=0)
    chosen = EvidenceLayer(backbone.body.get_submodule(layer), Layout.CHANNELS_FIRST, side)
    assert found(backbone, size=size) == chosen


def test_a_backbone_that_names_no_stages_is_searched_through() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert found(bare(body), size=32) == EvidenceLayer(body[1], Layout.CHANNELS_FIRST, 8)


def test_where_nothing_has_a_grid_there_is_no_layer() -> None:
    assert found(bare(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))), size=32) is None


def test_tokens_are_laid_as_the_image_lies_without_what_comes_before_them() -> None:
    layer = EvidenceLayer(nn.Identity(), Layout.TOKENS, 3)
    tokens = torch.arange(11.0)[None, :, None]  # class token, register, then row by row
    assert layer.planes(tokens).tolist() == [[[[2, 3, 4], [5, 6, 7], [8, 9, 10]]]]


def bare(body: nn.Module) -> Backbone:
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_pct=1.0)
    return Backbone(body, name="bare", feature_dim=4, input_spec=spec, weights_id="none")
