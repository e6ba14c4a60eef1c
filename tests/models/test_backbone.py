"""A backbone is its body with a name, and its images have the size that user, dataset and architecture agree on."""

import pytest
import torch
from torch import nn

from tl_experiments.models.backbone import Backbone, choose_image_size
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.runtime.errors import SettingError


@pytest.mark.parametrize(
    ("wanted", "preferred", "fixed", "size"),
    [
        (None, None, False, 224),
        (None, 64, False, 64),
        (96, 64, False, 96),
        (96, None, False, 96),
        (32, None, False, 32),
        (None, 64, True, 224),
        (224, 64, True, 224),
        (None, 16, False, 224),
        (None, 32, False, 32),
        (512, None, False, 512),
    ],
)
def test_the_user_comes_before_the_dataset_before_the_weights(
    wanted: int | None, preferred: int | None, fixed: bool, size: int
) -> None:
    assert choose_image_size(name="net", own=224, wanted=wanted, preferred=preferred, fixed=fixed) == size


@pytest.mark.parametrize(
    ("wanted", "smallest", "fixed", "message"),
    [
        (31, 32, False, "backbone.image_size=31: net takes 32 pixels or more"),
        (74, 75, False, "backbone.image_size=74: net takes 75 pixels or more"),
        (96, 32, True, "backbone.image_size=96: net takes 224 pixels only; leave it null"),
        (16, 32, True, "backbone.image_size=16: net takes 224 pixels only; leave it null"),
    ],
)
def test_what_the_user_wants_is_refused_and_not_replaced(wanted: int, smallest: int, fixed: bool, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        choose_image_size(name="net", own=224, wanted=wanted, preferred=64, smallest=smallest, fixed=fixed)
    assert str(caught.value) == message


def test_a_backbone_holds_the_tensors_of_its_body_alone() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    spec = InputSpec(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0)
    backbone = Backbone(body, name="net", feature_dim=4, input_spec=spec, weights_id="random(seed=0)")
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(backbone(images), body(images))
    assert list(backbone.state_dict()) == [f"body.{name}" for name in body.state_dict()]
