"""Members that share an update follow PyTorch's own optimizers, each with its own settings."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import ASGD, SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from tl_experiments.engine.bank_rules import read_settings
from tl_experiments.engine.optimizers import make_optimizer
from tl_experiments.engine.schedulers import constant
from tl_experiments.engine.updates import BankUpdates, SingleUpdates, Updates, make_updates
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.param_groups import ParamGroup, all_parts, param_groups

FINITE = torch.ones(1, dtype=torch.bool)  # is every loss
STEPS, FEATURE_DIM, NUM_CLASSES, BATCH = 50, 12, 4, 16
RTOL, ATOL = 1e-5, 2e-6  # of the largest weight, or of 1: some float32 roundings in 50 steps
Factory = Callable[..., Optimizer]
FACTORIES: dict[str, list[Factory]] = {
    "sgd": [partial(SGD, lr=lr, weight_decay=decay) for lr, decay in ((0.1, 0.0), (0.01, 0.5), (0.3, 0.1))],
    "momentum": [
        partial(SGD, lr=lr, momentum=momentum, weight_decay=decay)
        for lr, momentum, decay in ((0.1, 0.9, 0.0), (0.02, 0.0, 0.5), (0.05, 0.5, 0.1))
    ],
    "nesterov": [
        partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        partial(SGD, lr=0.05, momentum=0.9, nesterov=False),
        partial(SGD, lr=0.02, momentum=0.5, nesterov=True),
    ],
    "adam": [
        partial(Adam, lr=1e-2),
        partial(Adam, lr=1e-3, weight_decay=0.3, betas=(0.8, 0.99), eps=1e-3),
        partial(Adam, lr=3e-2, weight_decay=0.01, betas=(0.95, 0.9), eps=1e-6),
    ],
    "adamw": [
        partial(AdamW, lr=1e-2),
        partial(AdamW, lr=1e-3, weight_decay=5.0, betas=(0.8, 0.99), eps=1e-3),
        partial(AdamW, lr=3e-2, weight_decay=0.0, betas=(0.95, 0.9), eps=1e-6),
    ],
    "rmsprop": [
        partial(RMSprop, lr=1e-2),
        partial(RMSprop, lr=1e-3, weight_decay=0.3, alpha=0.8, eps=1e-3, momentum=0.9),
        partial(RMSprop, lr=3e-3, weight_decay=0.01, alpha=0.9, momentum=0.5),
    ],
}


def make_bank(num_members: int) -> HeadBank:
    return HeadBank(feature_dim=FEATURE_DIM, num_classes=NUM_CLASSES, seeds=tuple(range(num_members)))


def bank_groups(bank: HeadBank) -> tuple[ParamGroup, ...]:
    return param_groups(bank, all_parts(bank), has_member_axis=True)


def updates_of(bank: HeadBank, factories: Sequence[Factory]) -> Updates:
    updates = make_updates(bank_groups(bank), optimizers=factories, schedulers=[constant] * len(factories), fused=True)
    updates.begin(total_steps=STEPS, steps_per_epoch=STEPS)
    return updates


def gradients(step: int, member: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of weight and bias: different in every step and of different sizes."""
    generator = torch.Generator().manual_seed(1000 * step + member)
    scale = 10.0 ** (member - 1)
    return (
        scale * torch.randn(NUM_CLASSES, FEATURE_DIM, generator=generator),
        scale * torch.randn(NUM_CLASSES, generator=generator),
    )


def train_together(factories: Sequence[Factory], *, members: Sequence[int] = (0, 1, 2)) -> HeadBank:
    """Heads after STEPS updates; `members` name the gradients."""
    bank = make_bank(len(factories))
    with torch.no_grad():
        for place, member in enumerate(members):
            whole = make_bank(max(members) + 1)
            bank.weight[place], bank.bias[place] = whole.weight[member], whole.bias[member]
    updates = updates_of(bank, factories)
    assert isinstance(updates, BankUpdates)
    for step in range(STEPS):
        both = [gradients(step, member) for member in members]
        bank.weight.grad = torch.stack([weight for weight, _ in both])
        bank.bias.grad = torch.stack([bias for _, bias in both])
        updates.step(FINITE)
        assert bank.weight.grad is None
        assert bank.bias.grad is None
    return bank


def train_alone(factory: Factory, member: int) -> nn.Linear:
    """The same head under PyTorch's optimizer, without weight decay on its bias."""
    head = make_bank(member + 1).head(member)
    optimizer = make_optimizer(factory, param_groups(head, all_parts(head), has_member_axis=False), fused=False)
    for step in range(STEPS):
        head.weight.grad, head.bias.grad = gradients(step, member)
        optimizer.step()
    return head


@pytest.mark.parametrize("name", FACTORIES)
def test_members_follow_pytorchs_optimizers_each_with_its_own_settings(name: str) -> None:
    factories = FACTORIES[name]
    bank = train_together(factories)
    for member, factory in enumerate(factories):
        begin, expected = make_bank(member + 1).head(member), train_alone(factory, member)
        assert (expected.weight - begin.weight).abs().max() > 0.01, "the test needs weights that move"
        assert expected.weight.abs().max() < 1e3, "the test needs weights that stay finite"
        scale = max(1.0, float(expected.weight.detach().abs().max()))
        for ours, theirs in ((bank.weight[member], expected.weight), (bank.bias[member], expected.bias)):
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", FACTORIES)
def test_settings_belong_to_their_member(name: str) -> None:
    """The same gradients and places with other neighbours give the same bits."""
    first, second, third = FACTORIES[name]
    bank = train_together([first, second, third])
    turned = train_together([third, second, first], members=(2, 1, 0))
    alone = train_together([second], members=(1,))
    assert torch.equal(turned.weight, bank.weight.flip(0))
    assert torch.equal(turned.bias, bank.bias.flip(0))
    assert torch.equal(alone.weight[0], bank.weight[1])
    assert torch.equal(alone.bias[0], bank.bias[1])


@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW, RMSprop])
def test_weights_decay_and_biases_do_not(optimizer: Factory) -> None:
    bank = make_bank(2)
    before = bank.weight.detach().clone(), bank.bias.detach().clone()
    updates = updates_of(bank, [partial(optimizer, lr=0.1, weight_decay=decay) for decay in (0.0, 0.5)])
    bank.weight.grad, bank.bias.grad = torch.zeros_like(bank.weight), torch.zeros_like(bank.bias)
    updates.step(FINITE)
    assert torch.equal(bank.bias, before[1])
    assert torch.equal(bank.weight[0], before[0][0])
    assert ((bank.weight[1] - before[0][1]) * before[0][1] < 0).all(), "every weight moves towards zero"


def test_a_parameter_without_a_gradient_stays() -> None:
    bank = make_bank(2)
    before = bank.weight.detach().clone()
    updates = updates_of(bank, [partial(AdamW, lr=0.1, weight_decay=0.5)] * 2)
    bank.bias.grad = torch.ones_like(bank.bias)
    updates.step(FINITE)
    assert torch.equal(bank.weight, before)


UNKNOWN = {
    "adagrad": partial(Adagrad, lr=0.05),
    "asgd": partial(ASGD, lr=0.05),
    "nadam": partial(NAdam, lr=0.05),
    "amsgrad": partial(Adam, lr=0.05, amsgrad=True),
    "maximize": partial(SGD, lr=0.05, maximize=True),
    "dampening": partial(SGD, lr=0.05, momentum=0.9, dampening=0.5),
    "centered": partial(RMSprop, lr=0.05, centered=True),
    "decoupled": partial(Adam, lr=0.05, weight_decay=0.1, decoupled_weight_decay=True),
}


class OwnSGD(SGD):
    """A subclass may do anything."""


@pytest.mark.parametrize("factory", [*UNKNOWN.values(), partial(OwnSGD, lr=0.05)], ids=[*UNKNOWN, "subclass"])
def test_an_optimizer_without_a_rule_trains_one_member_by_pytorch_and_several_not_at_all(factory: Factory) -> None:
    assert read_settings(factory)[0] is None
    bank, reference = make_bank(1), make_bank(1)
    updates = updates_of(bank, [factory])
    assert isinstance(updates, SingleUpdates)
    theirs = factory([{"params": [reference.weight]}, {"params": [reference.bias], "weight_decay": 0.0}])
    for step in range(5):
        for module in (bank, reference):
            weight, bias = gradients(step, 0)
            module.weight.grad, module.bias.grad = weight[None], bias[None]
        updates.step(FINITE)
        theirs.step()
    assert not torch.equal(reference.weight, make_bank(1).weight)
    torch.testing.assert_close(bank.weight, reference.weight)  # a fused update rounds otherwise
    torch.testing.assert_close(bank.bias, reference.bias)
    with pytest.raises(ValueError, match="cannot be updated together"):
        updates_of(make_bank(2), [factory, factory])


@pytest.mark.parametrize("name", FACTORIES)
def test_optimizers_of_the_configuration_have_a_rule(name: str) -> None:
    assert all(read_settings(factory)[0] is not None for factory in FACTORIES[name])


def test_optimizers_of_two_classes_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="cannot be updated together"):
        updates_of(make_bank(2), [partial(AdamW, lr=0.1), partial(Adam, lr=0.1)])


def test_several_members_that_are_no_bank_are_refused_and_one_is_pytorchs() -> None:
    layer = nn.Linear(2, 2)
    groups = param_groups(layer, all_parts(layer), has_member_axis=False)
    with pytest.raises(ValueError, match="they are no bank"):
        make_updates(groups, optimizers=[partial(SGD, lr=0.1)] * 2, schedulers=[constant] * 2, fused=True)
    alone = make_updates(groups, optimizers=[partial(SGD, lr=0.1)], schedulers=[constant], fused=True)
    assert isinstance(alone, SingleUpdates)
