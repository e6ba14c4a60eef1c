"""Parameters are found by their names or by what they do, and what is not found is told with what there is."""

import pytest
import torch
from torch import nn

from tests.models.test_param_groups import make_model
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.selections import bias_parameters, matching_parameters, norm_parameters, still_modules
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.errors import SettingError


@pytest.fixture(scope="module")
def resnet18() -> Backbone:
    return make_model("resnet18").backbone


def timm(name: str) -> Backbone:
    with torch.device("meta"):
        return timm_backbone(name=name, weights=None, image_size=None, preferred_size=None, seed=0)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["conv1.weight"], {"conv1.weight"}),
        (["layer[34].1.bn2.bias"], {"layer3.1.bn2.bias", "layer4.1.bn2.bias"}),
        (
            ["layer1.0.conv?.weight", "bn1.*"],
            {"layer1.0.conv1.weight", "layer1.0.conv2.weight", "bn1.weight", "bn1.bias"},
        ),
    ],
)
def test_patterns_name_parameters_as_they_are_called_in_the_backbone(
    patterns: list[str], found: set[str], resnet18: Backbone
) -> None:
    assert matching_parameters(resnet18, patterns) == found


def test_a_star_reaches_over_dots(resnet18: Backbone) -> None:
    every = {name for name, _ in resnet18.body.named_parameters()}
    assert matching_parameters(resnet18, ["*"]) == every
    assert matching_parameters(resnet18, ["layer4.*"]) == {name for name in every if name.startswith("layer4.")}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("layer4", "no parameter of resnet18 matches layer4; did you mean layer4.*?"),
        ("backbone.body.layer4.*", "did you mean layer4.*?"),
        ("layer5.0.conv1.weight", "; its stages end at layer1, layer2, layer3, layer4; names are like layer"),
        ("?", "; its stages end at layer1, layer2, layer3, layer4; names are like conv1.weight or "),
        ("LAYER4.*", "no parameter of resnet18 matches LAYER4.*"),
    ],
)
def test_a_pattern_that_matches_nothing_is_told_with_what_there_is(pattern: str, told: str, resnet18: Backbone) -> None:
    with pytest.raises(SettingError) as caught:
        matching_parameters(resnet18, ["conv1.weight", pattern])
    assert str(caught.value).startswith("strategy.train: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "num_layers"),
    [("resnet18", 20), ("efficientnet_lite0", 49), ("vit_b_16", 25), ("vgg16", 0), ("test_vit4", None)],
)
def test_norms_of_every_kind_are_found_and_nothing_else(backbone: str, num_layers: int | None) -> None:
    body = make_model(backbone).backbone.body
    found = norm_parameters(body)
    owners = {name.rpartition(".")[0] for name in found}
    assert num_layers is None or len(owners) == num_layers
    assert all(body.get_parameter(name).ndim == 1 for name in found)
    spared = {name for name, module in body.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert not owners & spared
    if backbone == "test_vit4":  # its RMSNorm is a class of timm's own
        assert "blocks.0.norm1.weight" in found


def test_networks_without_norms_have_the_word_in_their_names() -> None:
    assert not norm_parameters(timm("nfnet_f0").body)


def test_biases_are_those_of_attention_and_norms_too() -> None:
    found = bias_parameters(make_model("vit_b_16").backbone.body)
    layer = "encoder.layers.encoder_layer_0"
    assert {
        f"{layer}.ln_1.bias",
        f"{layer}.self_attention.in_proj_bias",
        f"{layer}.mlp.0.bias",
        "conv_proj.bias",
    } <= found
    assert not [name for name in found if name.endswith("weight")]
    assert {name.split(".")[-2] for name in bias_parameters(make_model("resnet18").backbone.body)} >= {"bn1", "bn2"}


def test_what_stands_still_is_told_by_its_largest_parts() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    [still] = still_modules(network, {id(network[1][0].bias)})
    assert still is network[0]
