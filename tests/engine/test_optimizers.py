"""Groups become an optimizer: rates in proportion to their scale, and decay only where it is wanted."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tl_experiments.engine.optimizers import base_lr, make_optimizer
from tl_experiments.models.param_groups import Part, param_groups

FACTORIES = {
    "adamw": partial(AdamW, lr=0.2, weight_decay=0.5),
    "adam": partial(Adam, lr=0.2, weight_decay=0.5),
    "sgd": partial(SGD, lr=0.2, weight_decay=0.5),
    "rmsprop": partial(RMSprop, lr=0.2, weight_decay=0.5),
}


def make_module() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "head": nn.Linear(4, 2)})


def make(
    factory: Callable[..., Optimizer], module: nn.Module, *, backbone_scale: float = 0.1, fused: bool = False
) -> Optimizer:
    which = {"backbone": Part("backbone", lr_scale=backbone_scale), "head": Part("head")}
    parts = {name: which[name.partition(".")[0]] for name, _ in module.named_parameters()}
    return make_optimizer(factory, param_groups(module, parts, has_member_axis=False), fused=fused)


@pytest.mark.parametrize("name", FACTORIES)
def test_rates_and_decay_follow_the_groups(name: str) -> None:
    optimizer = make(FACTORIES[name], make_module())
    told = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert told == {
        "backbone/decay": (pytest.approx(0.02), 0.5),
        "backbone/no_decay": (pytest.approx(0.02), 0.0),
        "head/decay": (0.2, 0.5),
        "head/no_decay": (0.2, 0.0),
    }


@pytest.mark.parametrize("name", FACTORIES)
def test_every_parameter_is_in_one_group(name: str) -> None:
    module = make_module()
    held = [param for group in make(FACTORIES[name], module).param_groups for param in group["params"]]
    assert len(held) == len({id(param) for param in held}) == len(list(module.parameters()))


def test_a_step_moves_the_backbone_by_its_scale_and_decays_weights_alone() -> None:
    module = make_module()
    before = {name: param.detach().clone() for name, param in module.named_parameters()}
    optimizer = make(FACTORIES["sgd"], module)
    for param in module.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step()
    expected = {
        "backbone.0.weight": before["backbone.0.weight"] - 0.02 * (1 + 0.5 * before["backbone.0.weight"]),
        "backbone.0.bias": before["backbone.0.bias"] - 0.02,
        "backbone.1.weight": before["backbone.1.weight"] - 0.02,
        "backbone.1.bias": before["backbone.1.bias"] - 0.02,
        "head.weight": before["head.weight"] - 0.2 * (1 + 0.5 * before["head.weight"]),
        "head.bias": before["head.bias"] - 0.2,
    }
    for name, param in module.named_parameters():
        torch.testing.assert_close(param.detach(), expected[name])


def test_the_base_rate_is_that_of_scale_one() -> None:
    optimizer = make(FACTORIES["sgd"], make_module(), backbone_scale=0.01)
    assert base_lr(optimizer) == pytest.approx(0.2)
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
    assert base_lr(optimizer) == pytest.approx(0.1)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_fused_update_is_the_same_but_for_rounding(name: str) -> None:
    """RMSprop has none, and is left as it is."""
    modules = [make_module(), make_module()]
    for module, fused in zip(modules, (False, True), strict=True):
        optimizer = make(FACTORIES[name], module, fused=fused)
        fuses = fused and name != "rmsprop"
        assert all(bool(group.get("fused")) is fuses for group in optimizer.param_groups)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            for param in module.parameters():
                param.grad = torch.randn(param.shape, generator=generator)
            optimizer.step()
    plain, whole = (dict(module.named_parameters()) for module in modules)
    for param, other in zip(plain.values(), whole.values(), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-5, atol=1e-6)
    assert not torch.equal(plain["head.weight"], make_module()["head"].weight)
