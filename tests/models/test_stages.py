"""A backbone cut between its stages is the same network in two pieces."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import vision_transformer

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.stages import cut, stage_numbers
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import ARCHITECTURES, torchvision_backbone
from tl_experiments.runtime.errors import SettingError

SPEC = InputSpec(size=8, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)
TIMM = ("densenet121", "mobilenetv4_conv_small", "regnety_002", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
SMALL = {"inception_v3": 75, "vit_b_16": None}  # the smallest images that they take


def build(name: str) -> Backbone:
    settings = {"weights": None, "preferred_size": None, "seed": 0}
    if name == "efficientnet_lite0":
        return efficientnet_lite0(name=name, image_size=32, **settings)
    if name in ARCHITECTURES:
        return torchvision_backbone(name=name, image_size=SMALL.get(name, 32), **settings)
    return timm_backbone(name=name, image_size=None, **settings)


@pytest.fixture(autouse=True)
def narrow_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow layers of torchvision's ViT are cut as wide ones are."""
    whole = vision_transformer._vision_transformer
    narrow = {"hidden_dim": 48, "mlp_dim": 96}
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **given: whole(**{**given, **narrow}))


def images_for(backbone: Backbone) -> torch.Tensor:
    size = backbone.input_spec.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    [
        *("efficientnet_lite0", "inception_v3", "mobilenet_v3_large", "resnet18", "resnet50", "test_convnext", "vgg16"),
        "vit_b_16",
    ],
)
@torch.no_grad()
def test_the_halves_after_each_other_are_the_backbone_wherever_it_is_cut(name: str) -> None:
    backbone = build(name)
    images = images_for(backbone)
    expected = backbone.eval()(images)
    all_names = {parameter for parameter, _ in backbone.body.named_parameters()}
    trained: set[str] = set()
    assert len(backbone.stages) > 1
    for num_trained in (1, len(backbone.stages) - 1):
        halves = cut(backbone, num_trained=num_trained)
        torch.testing.assert_close(halves.suffix(halves.prefix(images)), expected)
        before = trained
        trained = {parameter for parameter, _ in halves.suffix.named_parameters()}
        assert before < trained < all_names, "one stage more trains more"
        assert trained | {parameter for parameter, _ in halves.prefix.named_parameters()} == all_names


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0",
        "resnet18",
        "inception_v3",
        "mobilenet_v3_large",
        "test_convnext",
        "test_resnet",
        "vgg16",
        "vit_b_16",
    ],
)
def test_the_stage_of_a_parameter_is_that_in_which_a_cut_puts_it(name: str) -> None:
    backbone = build(name)
    numbers = stage_numbers(backbone)
    assert numbers.keys() == {parameter for parameter, _ in backbone.named_parameters()}
    for num_trained in {1, len(backbone.stages) // 2, len(backbone.stages) - 1}:
        suffix = {
            f"body.{parameter}" for parameter, _ in cut(backbone, num_trained=num_trained).suffix.named_parameters()
        }
        first = len(backbone.stages) - num_trained
        assert suffix == {parameter for parameter, number in numbers.items() if number >= first}


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "vgg16", "vit_b_16", *TIMM])
@torch.no_grad()
def test_stages_rise_in_the_order_in_which_layers_are_called(name: str) -> None:
    """Whether or not a network can be cut."""
    with torch.device("meta"):
        backbone = build(name).eval()
    numbers = stage_numbers(backbone)
    called: list[int] = []
    for path, module in backbone.named_modules():
        own = [numbers[f"{path}.{parameter}"] for parameter, _ in module.named_parameters(recurse=False)]
        if own:
            module.register_forward_pre_hook(lambda *_, own=own: called.extend(own))
    size = backbone.input_spec.size
    backbone(torch.zeros(1, 3, size, size, device="meta"))
    assert called == sorted(called)
    assert called[0] == 0


def test_the_halves_share_their_weights_with_the_backbone() -> None:
    backbone = build("resnet18")
    halves = cut(backbone, num_trained=1)
    own = dict(backbone.body.named_parameters())
    for half in (halves.prefix, halves.suffix):
        assert all(own[name] is parameter for name, parameter in half.named_parameters())
    assert {name.split(".")[0] for name, _ in halves.suffix.named_parameters()} == {"layer4"}


def test_dropout_in_a_trained_stage_follows_its_mode() -> None:
    """Tracing sees one mode; what it must not do is to keep it."""
    second = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5))
    body = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 3, 1), second=second, flat=nn.Flatten()))
    settings = {"name": "plain", "feature_dim": 8 * 8 * 8, "input_spec": SPEC, "weights_id": "none"}
    suffix = cut(Backbone(body, stages=("first", "second"), **settings), num_trained=1).suffix
    activations = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(suffix.eval()(activations), suffix(activations))
    assert not torch.equal(suffix.train()(activations), suffix(activations))


@pytest.mark.parametrize(
    ("num_trained", "expected"),
    [
        (4, "strategy.num_stages=4: resnet18 has 4 stages; expected 1 to 3, or "),
        (9, "strategy.num_stages=9: "),
    ],
)
def test_at_least_one_stage_stays_frozen(num_trained: int, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        cut(build("resnet18"), num_trained=num_trained)
    assert str(caught.value).startswith(expected)


class Body(nn.Module):
    """Two stages, and what the second may look at besides the first."""

    def __init__(self, look: Callable[["Body", torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self._look = look

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._look(self, images, self.first(images)).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (lambda body, images, first: body.second(first) + images, "the later stages look at more than its output"),
        (lambda body, images, first: body.second(body.first(first)), "expected one call of first, found 2"),  # noqa: ARG005
        (
            lambda body, images, first: nn.functional.dropout(body.second(first), training=body.training),  # noqa: ARG005
            "its dropout is no layer",
        ),
        (lambda body, images, first: body.second(first) if first.sum() > 0 else first, "control flow"),  # noqa: ARG005
    ],
)
def test_what_cannot_be_cut_is_told(look: Callable[..., torch.Tensor], reason: str) -> None:
    settings = {"name": "odd", "feature_dim": 3, "input_spec": SPEC, "weights_id": "none"}
    backbone = Backbone(Body(look), stages=("first", "second"), **settings)
    with pytest.raises(SettingError) as caught:
        cut(backbone, num_trained=1)
    assert str(caught.value).startswith("strategy: odd cannot be cut after first: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_backbone_that_tells_no_stages_cannot_be_cut() -> None:
    backbone = Backbone(nn.Conv2d(3, 3, 1), name="plain", feature_dim=3, input_spec=SPEC, weights_id="none")
    with pytest.raises(SettingError, match="plain has 0 stages"):
        cut(backbone, num_trained=1)
