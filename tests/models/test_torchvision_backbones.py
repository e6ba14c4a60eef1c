"""Every option of torchvision is its network up to the last linear layer, with the images that its weights expect."""

import pytest
import torch
from torch import nn
from torchvision import models

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.torchvision_backbones import ARCHITECTURES, torchvision_backbone
from tl_experiments.runtime.errors import SettingError

LAST_LAYERS = {
    "resnet18": ("fc", 512),
    "resnet50": ("fc", 2048),
    "vgg16": ("classifier.6", 4096),
    "inception_v3": ("fc", 2048),
    "mobilenet_v3_large": ("classifier.3", 1280),
    "vit_b_16": ("heads.head", 768),
}
SMALL = {"inception_v3": 96, "vit_b_16": 224}  # the others take 64 pixels


def build(name: str, *, image_size: int | None = None, preferred_size: int | None = None, seed: int = 0) -> Backbone:
    return torchvision_backbone(
        name=name, weights=None, image_size=image_size, preferred_size=preferred_size, seed=seed
    )


def spec(name: str, *, image_size: int | None = None, preferred_size: int | None = None) -> InputSpec:
    with torch.device("meta"):
        return build(name, image_size=image_size, preferred_size=preferred_size).input_spec


@pytest.fixture(scope="module", params=LAST_LAYERS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return build(request.param)


def before_last_layer(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    """What enters the last layer of torchvision's own network, given the backbone's weights."""
    options = {"transform_input": True, "init_weights": False} if backbone.name == "inception_v3" else {}
    with torch.device("meta"):
        network = models.get_model(backbone.name, weights=None, **options)
    network.load_state_dict(backbone.body.state_dict(), strict=False, assign=True)
    last = network.get_submodule(LAST_LAYERS[backbone.name][0]).to_empty(device="cpu")
    entering = []
    last.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    network.eval()(images)
    return entering[0]


def test_these_are_all_options() -> None:
    assert LAST_LAYERS.keys() == ARCHITECTURES.keys()


@torch.no_grad()
def test_features_are_what_enters_the_last_layer(backbone: Backbone) -> None:
    size = SMALL.get(backbone.name, 64)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    features = backbone.eval()(images)
    assert backbone.feature_dim == LAST_LAYERS[backbone.name][1]
    assert features.shape == (2, backbone.feature_dim)
    assert features.std() > 0
    assert torch.equal(features, before_last_layer(backbone, images))


def test_images_are_what_the_weights_were_evaluated_with(backbone: Backbone) -> None:
    preset = models.get_model_weights(backbone.name)["DEFAULT"].transforms()
    expected = backbone.input_spec
    assert [expected.size] == preset.crop_size
    assert [round(expected.size / expected.crop_pct)] == preset.resize_size
    assert (list(expected.mean), list(expected.std)) == (list(preset.mean), list(preset.std))
    assert expected.interpolation == preset.interpolation.value


@pytest.mark.parametrize("name", LAST_LAYERS)
def test_every_layer_that_is_left_serves_the_features(name: str) -> None:
    with torch.device("meta"):
        backbone = build(name)
        size = backbone.input_spec.size
        backbone(torch.empty(2, 3, size, size)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", sorted(LAST_LAYERS.keys() - {"vit_b_16"}))
def test_a_wanted_size_wins_over_the_preferred_one(name: str) -> None:
    own = spec(name)
    assert spec(name, image_size=128, preferred_size=96) == InputSpec(
        128, own.mean, own.std, own.interpolation, own.crop_pct
    )
    assert spec(name, preferred_size=96).size == 96


def test_a_preferred_size_that_does_not_fit_is_left_alone() -> None:
    assert spec("vit_b_16", preferred_size=64).size == 224
    assert spec("inception_v3", preferred_size=64).size == 299


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", 31, "32 pixels or more"),
        ("vgg16", 16, "32 pixels or more"),
        ("inception_v3", 74, "75 pixels or more"),
        ("vit_b_16", 32, "224 pixels only"),
        ("vit_b_16", 256, "224 pixels only"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: int, expected: str) -> None:
    with pytest.raises(SettingError, match=f"^backbone.image_size={size}: {name} takes {expected}"):
        spec(name, image_size=size)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("mobilenet_v3_large", 32), ("inception_v3", 75)])
@torch.no_grad()
def test_the_smallest_size_has_features(name: str, size: int) -> None:
    with torch.device("meta"):
        backbone = build(name, image_size=size)
        assert backbone.eval()(torch.empty(2, 3, size, size)).shape == (2, backbone.feature_dim)


@torch.no_grad()
def test_inception_has_no_auxiliary_output_in_training_either() -> None:
    with torch.device("meta"):
        backbone = build("inception_v3")
        features = backbone.train()(torch.empty(2, 3, 299, 299))
    assert isinstance(features, torch.Tensor)
    assert features.shape == (2, 2048)
    assert not [name for name, _ in backbone.named_modules() if "AuxLogits" in name]


def test_random_weights_are_a_function_of_the_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (build("mobilenet_v3_large", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert (first.weights_id, other.weights_id) == ("random(seed=3)", "random(seed=4)")


def test_an_unknown_name_is_answered_with_the_options() -> None:
    with pytest.raises(SettingError, match=r"backbone\.name=resnet19: expected one of resnet18, resnet50"):
        build("resnet19")


def test_no_layer_behind_the_features_is_left() -> None:
    with torch.device("meta"):
        for name, (last, _) in LAST_LAYERS.items():
            assert isinstance(build(name).body.get_submodule(last), nn.Identity)
