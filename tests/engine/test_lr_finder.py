"""The range test finds a rate with which the loss falls, and leaves nothing behind."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.engine.test_trainer import make_trainer, make_workload
from tl_experiments.engine.lr_finder import FIRST, LAST, range_test, suggest
from tl_experiments.engine.records import EpochRecord
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.engine.trainer import Trainer
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Workload


def trainer_of(workload: Workload, scheduler: Callable[..., Schedule]) -> Trainer:
    return make_trainer(workload, lr=FIRST, scheduler=scheduler, log_every_steps=1)


def train_loss(lr: float) -> float:
    records = list(make_trainer(make_workload(epochs=(3,)), lr=lr).fit())
    return [record for record in records if isinstance(record, EpochRecord)][-1].train_loss[0]


def test_it_leaves_weights_gradients_and_generators_as_they_were() -> None:
    workload = make_workload(dropout=0.5)
    weights, generator = workload.weights_sha256(0), torch.get_rng_state()
    first, second = (range_test(workload, trainer_of) for _ in range(2))
    assert workload.weights_sha256(0) == weights
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for group in workload.groups for parameter in group.params)
    assert first == second


def test_with_the_suggestion_the_loss_falls_further_than_with_a_far_smaller_rate() -> None:
    suggestion = range_test(make_workload(), trainer_of).suggestion
    assert FIRST < suggestion < LAST
    assert train_loss(suggestion) < train_loss(suggestion / 100) - 0.05


def test_rates_rise_in_equal_ratios_and_losses_are_those_of_single_batches() -> None:
    workload = make_workload()
    found = range_test(workload, trainer_of, num_steps=15)
    assert found.rates == pytest.approx([FIRST * (LAST / FIRST) ** (step / 14) for step in range(len(found.rates))])
    batches = [next(workload.phases[0].open().train.epoch(1))]
    expected = torch.nn.functional.cross_entropy(workload.phases[0].module(batches[0].inputs)[0], batches[0].labels[0])
    assert found.losses[0] == pytest.approx(expected.item(), rel=1e-5)


def test_the_middle_of_the_longest_valley_is_suggested() -> None:
    rates = [10.0**exponent for exponent in range(-6, 3)]
    assert suggest(rates, [2.0, 2.1, 2.2, 1.8, 1.4, 1.0, 0.7, 3.0, 9.0]) == 1e-2


def test_the_steps_are_told_as_they_are_made() -> None:
    told: list[tuple[int, int]] = []
    range_test(make_workload(), trainer_of, num_steps=12, on_step=lambda done, of: told.append((done, of)))
    assert told == [(step, 12) for step in range(1, 13)]


def test_what_is_solved_for_has_no_rate() -> None:
    workload = make_workload()
    solved = replace(workload, phases=(replace(workload.phases[0], solve=lambda *_: None),))
    with pytest.raises(SettingError, match="takes no gradient steps"):
        range_test(solved, trainer_of)


class Deaf(nn.Module):
    """Says the same of everything, whatever the weights are."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return 0 * logits


def test_a_loss_that_falls_at_no_rate_is_told() -> None:
    workload = make_workload()
    [phase] = workload.phases
    deaf = replace(phase, module=nn.Sequential(phase.module, Deaf()))
    with pytest.raises(SettingError, match="falls at no rate"):
        range_test(replace(workload, phases=(deaf,)), trainer_of)


def test_a_loss_that_is_not_finite_from_the_start_is_told() -> None:
    workload = make_workload()
    with torch.no_grad():
        workload.phases[0].module[1].weight.fill_(torch.nan)
    with pytest.raises(SettingError, match="not finite after 0 steps"):
        range_test(workload, trainer_of)
