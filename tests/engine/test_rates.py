"""Members that train side by side have exactly the rates that PyTorch's schedulers give each alone."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from tl_experiments.engine import schedulers
from tl_experiments.engine.rates import Rates, same
from tl_experiments.engine.schedulers import Schedule

EPOCHS, STEPS_PER_EPOCH = 6, 4
TOTAL = EPOCHS * STEPS_PER_EPOCH
Make = Callable[..., Schedule]
SCHEDULES: dict[str, Make] = {
    "cosine": partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=0.0),
    "warmup": partial(schedulers.cosine, warmup_epochs=1.5, min_lr_fraction=0.1),
    "step": partial(schedulers.step, step_size=2, gamma=0.3),
    "onecycle": partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
    "constant": schedulers.constant,
    "plateau": partial(schedulers.plateau, factor=0.1, patience=0),
}
RISING, FALLING, STILL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (0.5,) * 6


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def together(members: Sequence[tuple[float, Make, Sequence[float]]]) -> list[list[float]]:
    """The rate of every update, and the one after the last, for members of (peak, schedule, val/acc by epoch)."""
    peaks, factories, scores = zip(*members, strict=True)
    rates = Rates(peaks, factories, total_steps=TOTAL, steps_per_epoch=STEPS_PER_EPOCH)
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            seen.append(rates.current)
            rates.after_step()
        rates.after_epoch([score[epoch] for score in scores])
    return [list(member) for member in zip(*seen, rates.current, strict=True)]


def alone(peak: float, make: Make, scores: Sequence[float]) -> list[float]:
    """The same with a schedule on an optimizer that trains a parameter."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = make(optimizer, total_steps=TOTAL, steps_per_epoch=STEPS_PER_EPOCH)
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(scores[epoch])
    return [*seen, optimizer.param_groups[0]["lr"]]


def of_pytorch(name: str, peak: float, scores: Sequence[float]) -> list[float]:
    """The same with PyTorch's own scheduler, spelled out."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    by_step: dict[str, Callable] = {
        "cosine": lambda: CosineAnnealingLR(optimizer, T_max=TOTAL),
        "onecycle": lambda: OneCycleLR(
            optimizer, max_lr=peak, total_steps=TOTAL + 1, pct_start=0.3, final_div_factor=1e4, cycle_momentum=False
        ),
    }
    by_epoch: dict[str, Callable] = {
        "step": lambda: StepLR(optimizer, step_size=2, gamma=0.3),
        "constant": lambda: StepLR(optimizer, step_size=1, gamma=1.0),
        "plateau": lambda: ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=0),
    }
    scheduler = {**by_step, **by_epoch}[name]()
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS_PER_EPOCH):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if name in by_step:
                scheduler.step()
        if name == "plateau":
            scheduler.step(scores[epoch])
        elif name in by_epoch:
            scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("name", SCHEDULES)
def test_members_of_one_schedule_have_their_own_rates(name: str) -> None:
    members = [(peak, SCHEDULES[name], scores) for peak, scores in ((0.1, FALLING), (3e-4, RISING), (7.0, STILL))]
    assert together(members) == [alone(*member) for member in members]


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "warmup"])
def test_the_rates_are_those_of_pytorchs_scheduler(name: str) -> None:
    members = [(peak, SCHEDULES[name], scores) for peak, scores in ((0.1, FALLING), (3e-4, RISING))]
    for (peak, _, scores), seen in zip(members, together(members), strict=True):
        expected = of_pytorch(name, peak, scores)
        # PyTorch's cosine is a recursion; ours is the formula, and rounds otherwise.
        assert seen == (pytest.approx(expected, rel=1e-9, abs=1e-15) if name == "cosine" else expected)


def test_members_of_different_schedules_do_not_mix() -> None:
    members = [
        (peak, make, scores)
        for scores in (FALLING, RISING)
        for peak in (0.1, 0.02)
        for make in (*SCHEDULES.values(), partial(schedulers.step, step_size=1, gamma=0.5))
    ]
    seen = together(members)
    assert seen == [alone(*member) for member in members]
    assert len({tuple(rates) for rates in seen}) == 2 * 7, "of one peak all differ; plateau alone looks at the scores"


def test_on_a_plateau_each_member_follows_its_own_score() -> None:
    plateau = SCHEDULES["plateau"]
    falling, rising, late = together(
        [(0.1, plateau, FALLING), (0.1, plateau, RISING), (0.1, plateau, (0.1, 0.2, 0.3, 0.3, 0.4, 0.5))]
    )
    assert rising == [0.1] * (TOTAL + 1)
    assert falling[::STEPS_PER_EPOCH] == pytest.approx([0.1, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    assert late[::STEPS_PER_EPOCH] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_a_member_has_the_same_rates_wherever_it_stands() -> None:
    members = [(0.1, make, FALLING) for make in SCHEDULES.values()]
    assert together(members[::-1]) == together(members)[::-1]


def test_a_schedule_of_ones_own_may_look_at_one_rate_only() -> None:
    def to_peak_of_the_first(optimizer: SGD, *, total_steps: int, steps_per_epoch: int) -> Schedule:  # noqa: ARG001
        peak = optimizer.param_groups[0]["lr"]
        return Schedule(OneCycleLR(optimizer, max_lr=peak, total_steps=total_steps + 1), moves="step")

    members = [(peak, to_peak_of_the_first, STILL) for peak in (0.1, 0.02, 0.1)]
    assert together(members) == [alone(*member) for member in members]


def test_schedules_are_the_same_when_they_make_the_same_call() -> None:
    assert same(schedulers.constant, schedulers.constant)
    assert same(partial(schedulers.step, step_size=2, gamma=0.3), SCHEDULES["step"])
    assert not same(partial(schedulers.step, step_size=3, gamma=0.3), SCHEDULES["step"])
    assert not same(SCHEDULES["cosine"], SCHEDULES["step"])
    assert not same(schedulers.constant, partial(schedulers.constant))
