"""A gradient that is too large is scaled down as PyTorch does it, each member's by its own norm."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

from tests.engine.test_bank import LARGE, ODD, Task
from tests.engine.test_nonfinite import ALL, _learn
from tl_experiments.engine import schedulers
from tl_experiments.engine.clipping import clip_members, member_norms
from tl_experiments.engine.updates import Updates, make_updates
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.param_groups import all_parts, param_groups


def make(
    module: torch.nn.Module, optimizer: Callable[..., Optimizer], *, clip: float | None, l2_sp: float = 0.0
) -> Updates:
    count = module.num_members if isinstance(module, HeadBank) else 1
    parts = {name: replace(part, l2_sp=l2_sp) for name, part in all_parts(module).items()}
    updates = make_updates(
        param_groups(module, parts, has_member_axis=isinstance(module, HeadBank)),
        optimizers=[optimizer] * count,
        schedulers=[schedulers.constant] * count,
        fused=True,
        clip_grad_norm=clip,
    )
    updates.begin(total_steps=9, steps_per_epoch=9)
    return updates


def gradients(module: torch.nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6])
def test_a_lone_network_gets_the_steps_of_pytorchs_clip_grad_norm(max_norm: float) -> None:
    ours, theirs = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    updates, plain = make(ours, partial(SGD, lr=0.1), clip=max_norm), SGD(theirs.parameters(), lr=0.1, fused=True)
    for seed in range(3):
        gradients(ours, seed=seed)
        gradients(theirs, seed=seed)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        updates.step(ALL)
        plain.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("max_norm", [1e-3, 5.0, 1e6])
def test_each_member_of_a_bank_is_clipped_as_pytorch_clips_it_alone(max_norm: float) -> None:
    bank = HeadBank(feature_dim=7, num_classes=3, seeds=(0, 1, 2))
    gradients(bank, seed=0)
    own = [bank.weight.grad, bank.bias.grad]
    own[0][1] *= 100  # type: ignore[index]
    alone = []
    for member in range(3):
        parameters = [torch.zeros_like(gradient[member], requires_grad=True) for gradient in own]
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient[member].clone()
        alone.append((torch.nn.utils.clip_grad_norm_(parameters, max_norm), [p.grad for p in parameters]))
    norms = member_norms(own)
    clip_members(own, norms, max_norm=max_norm)
    for member, (norm, clipped) in enumerate(alone):
        torch.testing.assert_close(norms[member], norm)
        for gradient, expected in zip(own, clipped, strict=True):
            torch.testing.assert_close(gradient[member], expected)


@pytest.mark.parametrize("task", [ODD, LARGE], ids=["odd", "large"])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_member_gets_does_not_depend_on_its_neighbours(task: Task, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        shapes = (task.num_classes, task.feature_dim), (task.num_classes,)
        generator = torch.Generator().manual_seed(0)
        every = [torch.randn(50, *shape, generator=generator) for shape in shapes]
        for count in (1, 2, 3, 10, 50):
            for first in {0, 50 - count}:
                some = [gradient[first : first + count].clone() for gradient in every]
                alone = [[gradient[:1].clone() for gradient in some], [gradient[-1:].clone() for gradient in some]]
                for own in (some, *alone):
                    clip_members(own, member_norms(own), max_norm=1.0)
                for gradient, (begin, end) in zip(some, zip(*alone, strict=True), strict=True):
                    assert torch.equal(gradient[:1], begin)
                    assert torch.equal(gradient[-1:], end)
    finally:
        torch.set_num_threads(before)


def test_the_pull_towards_the_pretrained_weights_is_clipped_too() -> None:
    layer = torch.nn.Linear(5, 4)
    start = layer.weight.detach().clone()
    updates = make(layer, partial(SGD, lr=1.0), clip=1e-3, l2_sp=1e3)
    with torch.no_grad():
        layer.weight.add_(1.0)
    moved = layer.weight.detach().clone()
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    updates.step(ALL)
    step = (layer.weight - moved).norm().item()
    assert step == pytest.approx(1e-3, rel=1e-2)
    assert (layer.weight - start).norm() < (moved - start).norm()


@pytest.mark.parametrize(
    "optimizer", [partial(SGD, lr=0.1, momentum=0.9), partial(AdamW, lr=0.1)], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_bad_gradient_changes_nothing_for_all_that_it_is_clipped(optimizer: Callable, spoil: float) -> None:
    bank, layer = HeadBank(feature_dim=5, num_classes=4, seeds=(0, 1)), torch.nn.Linear(5, 4)
    for module, count in ((bank, 2), (layer, 1)):
        updates: Updates = make(module, optimizer, clip=1.0)
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        _learn(module, spoil=spoil)
        assert updates.step(torch.ones(count, dtype=torch.bool)).tolist() == [False, True][:count]
        own = slice(0, 1) if count == 2 else slice(None)
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter[own], before[name][own])
        assert all(tensor.isfinite().all() for tensor in updates.state(0).values())
    assert not torch.equal(bank.weight[1], HeadBank(feature_dim=5, num_classes=4, seeds=(0, 1)).weight[1])
