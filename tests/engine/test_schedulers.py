"""Each schedule by step: PyTorch's own or the formula, and in proportion for groups of every lr_scale."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from tl_experiments.engine import schedulers
from tl_experiments.engine.optimizers import base_lr, make_optimizer
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.models.param_groups import Part, param_groups

PEAK = 0.4
SCHEDULES = {
    "cosine": partial(schedulers.cosine, warmup_epochs=1.0, min_lr_fraction=0.05),
    "step": partial(schedulers.step, step_size=2, gamma=0.3),
    "constant": schedulers.constant,
    "onecycle": partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
    "plateau": partial(schedulers.plateau, factor=0.1, patience=0),
}


def make_optimizer_of_two_scales() -> Optimizer:
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2, bias=False)})
    which = {"backbone": Part("backbone", lr_scale=0.1), "head": Part("head")}
    parts = {name: which[name.partition(".")[0]] for name, _ in module.named_parameters()}
    groups = param_groups(module, parts, has_member_axis=False)
    return make_optimizer(partial(SGD, lr=PEAK), groups, fused=False)


def rates(
    make: Callable[..., Schedule], *, epochs: int = 4, steps_per_epoch: int = 5, val_acc: float = 0.5
) -> list[float]:
    """The base rate that each update uses, and the one after the last."""
    return [base for base, *_ in all_rates(make, epochs=epochs, steps_per_epoch=steps_per_epoch, val_acc=val_acc)]


def all_rates(
    make: Callable[..., Schedule], *, epochs: int = 4, steps_per_epoch: int = 5, val_acc: float = 0.5
) -> list[tuple[float, float, float]]:
    """Base rate, rate of scale 0.1 and rate of scale 1 of each update, and after the last."""
    optimizer = make_optimizer_of_two_scales()
    schedule = make(optimizer, total_steps=epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)

    def now() -> tuple[float, float, float]:
        low, high = (group["lr"] for group in optimizer.param_groups)
        return base_lr(optimizer), low, high

    seen = []
    for _ in range(epochs):
        for _ in range(steps_per_epoch):
            seen.append(now())
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(val_acc)
    return [*seen, now()]


def half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize("minimum", [0.0, 0.25, 1.0])
def test_cosine_falls_from_the_peak_to_its_fraction(minimum: float) -> None:
    seen = rates(partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=minimum))
    assert seen == pytest.approx([half_cosine(PEAK, minimum * PEAK, step / 20) for step in range(21)])


def test_cosine_without_warmup_is_that_of_pytorch() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1 * PEAK)
    expected = []
    for _ in range(21):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=0.1)) == pytest.approx(expected)


@pytest.mark.parametrize(("warmup_epochs", "steps"), [(1.0, 5), (0.5, 2), (2.2, 11)])
def test_warmup_rises_in_a_line_and_meets_the_peak(warmup_epochs: float, steps: int) -> None:
    seen = rates(partial(schedulers.cosine, warmup_epochs=warmup_epochs, min_lr_fraction=0.0))
    assert seen[: steps + 1] == pytest.approx([PEAK * (step + 1) / (steps + 1) for step in range(steps + 1)])
    assert seen[steps:] == pytest.approx([half_cosine(PEAK, 0, i / (20 - steps)) for i in range(21 - steps)])


def test_step_is_that_of_pytorch() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    reference = StepLR(optimizer, step_size=2, gamma=0.3)
    expected = []
    for _ in range(4):
        expected += [optimizer.param_groups[0]["lr"]] * 5
        optimizer.step()
        reference.step()
    assert rates(SCHEDULES["step"])[:-1] == pytest.approx(expected)
    assert expected[0] == pytest.approx(expected[9]) != pytest.approx(expected[10])


def test_constant_is_constant() -> None:
    assert rates(SCHEDULES["constant"]) == pytest.approx([PEAK] * 21)


def test_onecycle_rises_to_the_peak_and_falls_to_the_last_rate() -> None:
    seen = rates(SCHEDULES["onecycle"])
    top = 0.3 * 21 - 1  # of 21 rates, 20 of which are used, the first 0.3 rise
    first, last = PEAK / 25, PEAK / 25 / 1e4
    rise = [half_cosine(first, PEAK, step / top) for step in range(math.floor(top) + 1)]
    fall = [half_cosine(PEAK, last, (step - top) / (20 - top)) for step in range(math.floor(top) + 1, 21)]
    assert seen == pytest.approx(rise + fall)
    assert all(before < after for before, after in pairwise(seen[:6]))
    assert all(before > after for before, after in pairwise(seen[6:]))


def test_onecycle_leaves_momentum_alone() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK, momentum=0.7)
    schedule = SCHEDULES["onecycle"](optimizer, total_steps=10, steps_per_epoch=10)
    for _ in range(10):
        optimizer.step()
        schedule.after_step()
        assert optimizer.param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9, 19])
def test_onecycle_takes_a_run_of_any_length(steps: int, pct_start: float) -> None:
    make = partial(schedulers.onecycle, pct_start=pct_start, div_factor=25.0, final_div_factor=1e4)
    seen = rates(make, epochs=1, steps_per_epoch=steps)
    assert all(0 < rate <= PEAK * (1 + 1e-9) for rate in seen)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_shortest_run_of_one_step(name: str) -> None:
    assert all(math.isfinite(rate) for rate in rates(SCHEDULES[name], epochs=1, steps_per_epoch=1))


def test_plateau_moves_by_the_val_acc_as_that_of_pytorch() -> None:
    accs = [0.5, 0.6, 0.6, 0.55, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7]
    ours, theirs = (SGD([torch.zeros(1, requires_grad=True)], lr=PEAK) for _ in range(2))
    schedule = schedulers.plateau(ours, total_steps=100, steps_per_epoch=10, factor=0.1, patience=2)
    reference = ReduceLROnPlateau(theirs, mode="max", factor=0.1, patience=2)
    seen = []
    for acc in accs:
        schedule.after_step()
        schedule.after_epoch(acc)
        reference.step(acc)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
        seen.append(ours.param_groups[0]["lr"])
    assert seen == pytest.approx([PEAK] * 4 + [PEAK * 0.1] * 4 + [PEAK * 0.01] * 2)


def test_plateau_keeps_the_rate_while_the_val_acc_rises() -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    schedule = schedulers.plateau(optimizer, total_steps=100, steps_per_epoch=10, factor=0.1, patience=0)
    for acc in (0.1, 0.2, 0.3, 0.4):
        schedule.after_epoch(acc)
    assert optimizer.param_groups[0]["lr"] == PEAK


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_keep_their_scale_at_every_step(name: str) -> None:
    seen = all_rates(SCHEDULES[name])
    for base, low, high in seen:
        assert (low, high) == (pytest.approx(0.1 * base), pytest.approx(base))
    assert name == "constant" or len({base for base, *_ in seen}) > 1
