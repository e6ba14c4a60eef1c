"""Any model of timm is a backbone: pooled features, its own images, and weights from the hub's cache."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.errors import SettingError, WeightsError


def build(name: str, **options: Any) -> Backbone:
    defaults = {"weights": None, "image_size": None, "preferred_size": None, "seed": 0}
    return timm_backbone(name=name, **(defaults | options))


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_resnet", "test_convnext", "test_nfnet", "test_efficientnet_gn", "mobilenetv3_small_050"],
)
@torch.no_grad()
def test_features_are_what_enters_the_classifier(name: str) -> None:
    backbone = build(name).eval()
    size = backbone.input_spec.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    network = timm.create_model(name, pretrained=False).eval()
    network.load_state_dict(backbone.body.state_dict(), strict=False)
    entering = []
    network.get_classifier().register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    network(images)
    features = backbone(images)
    assert features.shape == (2, backbone.feature_dim)
    torch.testing.assert_close(features, entering[0])


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "resnet50", "mobilenetv3_small_050"])
def test_images_are_what_the_weights_were_evaluated_with(name: str) -> None:
    with torch.device("meta"):
        spec = build(name).input_spec
    config = timm.get_pretrained_cfg(name)
    assert spec.size == config.input_size[-1]
    assert (spec.mean, spec.std) == (tuple(config.mean), tuple(config.std))
    assert (spec.interpolation, spec.crop_pct) == (config.interpolation, config.crop_pct)


def test_the_tag_of_the_weights_may_be_named() -> None:
    with torch.device("meta"):
        plain, tagged = build("resnet18").input_spec, build("resnet18.tv_in1k").input_spec
    assert (plain.interpolation, tagged.interpolation) == ("bicubic", "bilinear")


def test_a_wanted_size_wins_over_the_preferred_one() -> None:
    with torch.device("meta"):
        assert build("test_resnet", image_size=64, preferred_size=96).input_spec.size == 64
        assert build("test_resnet", preferred_size=96).input_spec.size == 96
        assert build("test_vit", preferred_size=96).input_spec.size == 160


@pytest.mark.parametrize(
    ("name", "size", "expected"), [("test_vit", 64, "160 pixels only"), ("test_resnet", 16, "32 pixels or more")]
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: int, expected: str) -> None:
    with pytest.raises(SettingError, match=f"^backbone.image_size={size}: {name} takes {expected}"):
        build(name, image_size=size)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"backbone\.name=resnt18: .*expected resnet18 or "):
        build("resnt18")
    with pytest.raises(SettingError, match=r"backbone\.name=zzzzzz: .*timm\.list_models"):
        build("zzzzzz")


def test_an_unknown_tag_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"resnet18\.nosuch"):
        build("resnet18.nosuch")


def test_random_weights_are_a_function_of_the_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (build("test_resnet", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert first.weights_id == "random(seed=3)"


def put_into_cache(network: Any, cache: Path) -> None:
    """Store a model's weights as the hub stores a download."""
    folder = cache / f"models--{network.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    save_file(network.state_dict(), folder / "snapshots" / commit / "model.safetensors")


def test_default_weights_come_from_the_cache_of_the_hub(hub_cache: Path) -> None:
    network = timm.create_model("test_resnet", pretrained=False)
    put_into_cache(network, hub_cache)
    state = torch.get_rng_state()
    backbone = build("test_resnet", weights="default")
    expected = network.state_dict()
    own = backbone.body.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in own.items())
    assert expected.keys() - own.keys() == {"fc.weight", "fc.bias"}
    assert backbone.weights_id == "timm/test_resnet.r160_in1k"
    assert torch.equal(torch.get_rng_state(), state), "the global generator moved"


def test_without_network_one_line_names_the_ways_out(hub_cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        build("test_resnet", weights="default")
    message = str(caught.value)
    assert "\n" not in message
    assert "https://huggingface.co/timm/test_resnet.r160_in1k" in message
    assert str(hub_cache) in message
    assert "backbone.weights=PATH" in message
    assert "backbone=efficientnet_lite0 needs no download" in message


def test_a_model_without_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="timm has no weights for mobilenetv2_035; use "):
        build("mobilenetv2_035", weights="default")
