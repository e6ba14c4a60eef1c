"""A model is a head after a backbone."""

import torch

from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.model import Model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make_model() -> Model:
    backbone = efficientnet_lite0(name="efficientnet_lite0", weights=None, image_size=32, preferred_size=None, seed=0)
    return Model(backbone, linear_head(feature_dim=backbone.feature_dim, num_classes=7, seed=0)).eval()


@torch.no_grad()
def test_logits_are_the_heads_of_the_backbones_features() -> None:
    model = make_model()
    logits = model(IMAGES)
    assert logits.shape == (2, 7)
    assert torch.equal(logits, model.head(model.backbone(IMAGES)))


@torch.no_grad()
def test_the_head_computes_in_float32_under_autocast_too() -> None:
    model = make_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, logits = model.backbone(IMAGES), model(IMAGES)
    assert (features.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(logits, model.head(features.float()))


def test_gradients_reach_head_and_backbone() -> None:
    model = make_model()
    model(IMAGES).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone", "head"}
