"""Every trainable parameter is in one group, and neither biases nor the parameters of norms decay."""

import pytest
import torch
from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import Part, all_parts, param_groups
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone

TORCHVISION = ("resnet18", "vgg16", "inception_v3", "mobilenet_v3_large", "vit_b_16")
# test_vit4 has timm's own RMSNorm, test_efficientnet_evos an activation in its norm and test_convnext layer scales.
TIMM = ("test_vit", "test_vit4", "test_efficientnet_evos", "test_efficientnet_gn", "test_convnext")
FACTORIES = {
    **dict.fromkeys(TORCHVISION, torchvision_backbone),
    **dict.fromkeys(TIMM, timm_backbone),
    "efficientnet_lite0": efficientnet_lite0,
}


def make_model(name: str) -> Model:
    """A model without any storage: names and shapes are what counts here."""
    with torch.device("meta"):
        backbone: Backbone = FACTORIES[name](name=name, weights=None, image_size=None, preferred_size=None, seed=0)
        return Model(backbone, linear_head(feature_dim=backbone.feature_dim, num_classes=10, seed=0))


@pytest.fixture(scope="module", params=FACTORIES)
def model(request: pytest.FixtureRequest) -> Model:
    return make_model(request.param)


def parts(model: Model) -> dict[str, Part]:
    """Every parameter, the backbone's at a tenth of the rate."""
    which = {"backbone": Part("backbone", lr_scale=0.1), "head": Part("head")}
    return {name: which[name.partition(".")[0]] for name, _ in model.named_parameters()}


def owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def test_every_parameter_is_in_exactly_one_group(model: Model) -> None:
    groups = param_groups(model, parts(model), has_member_axis=False)
    named = [pair for group in groups for pair in zip(group.param_names, group.params, strict=True)]
    own = dict(model.named_parameters())
    assert sorted(name for name, _ in named) == sorted(own)
    assert all(parameter is own[name] for name, parameter in named)
    assert len({group.name for group in groups}) == len(groups)


def test_neither_biases_nor_norms_decay(model: Model) -> None:
    groups = param_groups(model, parts(model), has_member_axis=False)
    decaying = [name for group in groups if group.weight_decay for name in group.param_names]
    biases = [name for name in decaying if name.endswith("bias")]
    norms = [name for name in decaying if "norm" in type(owner(model, name)).__name__.lower()]
    assert (biases, norms) == ([], [])


def test_the_weights_of_convolutions_and_linear_layers_decay(model: Model) -> None:
    groups = param_groups(model, parts(model), has_member_axis=False)
    spared = {name for group in groups if not group.weight_decay for name in group.param_names}
    weights = {f"{name}.weight" for name, child in model.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)}
    assert weights
    assert not spared & weights


@pytest.mark.parametrize("name", ["test_vit", "vit_b_16"])
def test_neither_tokens_nor_positions_decay(name: str) -> None:
    with torch.device("meta"):
        model = make_model(name)
    groups = param_groups(model, parts(model), has_member_axis=False)
    decaying = {name for group in groups if group.weight_decay for name in group.param_names}
    tables = [name for name, _ in model.named_parameters() if name.endswith(("token", "pos_embed", "pos_embedding"))]
    assert len(tables) == 2
    assert not decaying & {*tables}


def test_each_part_has_its_rate() -> None:
    model = make_model("resnet18")
    groups = param_groups(model, parts(model), has_member_axis=False)
    assert {group.name: group.lr_scale for group in groups} == {
        "backbone/decay": 0.1,
        "backbone/no_decay": 0.1,
        "head/decay": 1.0,
        "head/no_decay": 1.0,
    }
    for group in groups:
        assert all(name.startswith(group.name.split("/")[0]) for name in group.param_names)


def test_a_bank_of_heads_has_a_bias_that_does_not_decay() -> None:
    bank = HeadBank(feature_dim=4, num_classes=3, seeds=(0, 1))
    groups = param_groups(bank, all_parts(bank), has_member_axis=True)
    assert {group.param_names: group.weight_decay for group in groups} == {("weight",): True, ("bias",): False}
    assert all(group.has_member_axis for group in groups)


def test_what_is_pulled_does_not_decay() -> None:
    model = make_model("resnet18")
    pulled = {name: Part("all", l2_sp=0.1) for name in parts(model)}
    assert not any(group.weight_decay for group in param_groups(model, pulled, has_member_axis=False))


def test_frozen_parameters_are_left_out() -> None:
    model = make_model("resnet18")
    groups = param_groups(model, {"head.weight": Part(), "head.bias": Part()}, has_member_axis=False)
    assert [name for group in groups for name in group.param_names] == ["head.weight", "head.bias"]


def test_a_name_that_is_no_parameters_is_told() -> None:
    with pytest.raises(ValueError, match=r"no such parameter: backbone\.body\.conv9\.weight"):
        param_groups(make_model("resnet18"), {"backbone.body.conv9.weight": Part()}, has_member_axis=False)


def test_something_must_be_trained() -> None:
    with pytest.raises(ValueError, match="nothing is trained"):
        param_groups(nn.Linear(2, 2), {}, has_member_axis=False)
