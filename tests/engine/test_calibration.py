"""A fitted temperature is the best one, whatever val looks like, and the calibration error is the one of the papers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from tl_experiments.engine.calibration import MOST_TEMPERATURE, PRIOR_SAMPLES, fit_temperature, reliability


def drawn(num_samples: int, *, temperature: float, num_classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32, and labels drawn from what `softmax(logits / temperature)` says."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_samples, num_classes, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(dim=1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_under_which_labels_were_drawn_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(20_000, temperature=temperature)) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize(("num_samples", "temperature"), [(3, 1.0), (40, 0.3), (500, 4.0)])
def test_no_other_temperature_is_better(num_samples: int, temperature: float) -> None:
    logits, labels = drawn(num_samples, temperature=temperature)

    def worth(inverse: float) -> float:
        loss = F.cross_entropy(logits.double() * inverse, labels, reduction="sum").item()
        return loss + PRIOR_SAMPLES * (inverse - math.log(inverse))

    best = minimize_scalar(worth, bounds=(1 / MOST_TEMPERATURE, MOST_TEMPERATURE), options={"xatol": 1e-9})
    assert 1 / fit_temperature(logits, labels) == pytest.approx(best.x, rel=1e-4)


def test_a_split_that_says_little_moves_it_little_and_none_moves_it_beyond_its_bounds() -> None:
    right = 10 * torch.eye(4)
    classes = torch.arange(4)
    assert fit_temperature(right, classes) == pytest.approx(1.0, abs=0.05), "all right: the loss alone asks for 0"
    assert fit_temperature(right[:1].repeat(9, 1), classes[:1].repeat(9)) == pytest.approx(1.0, abs=0.05), "one class"
    assert fit_temperature(torch.empty(0, 4), classes[:0]) == pytest.approx(1.0)
    assert fit_temperature(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64)) == pytest.approx(1.0)
    assert fit_temperature(1e30 * right, classes.flip(0)) == MOST_TEMPERATURE
    barely = 1e-3 * right.repeat(10_000, 1)
    assert fit_temperature(barely, classes.repeat(10_000)) == 1 / MOST_TEMPERATURE


def test_samples_that_are_not_finite_are_left_out() -> None:
    logits, labels = drawn(50, temperature=2.0)
    spoilt = logits.clone()
    spoilt[7, 3], spoilt[9, 0] = math.nan, math.inf
    kept = [index for index in range(50) if index not in (7, 9)]
    assert fit_temperature(spoilt, labels) == fit_temperature(logits[kept], labels[kept])
    assert fit_temperature(torch.full((3, 2), math.nan), labels[:3] % 2) == pytest.approx(1.0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_error_is_that_of_torchmetrics(temperature: float) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error  # it takes half a second

    logits, labels = drawn(2_000, temperature=temperature)
    probabilities = logits.double().softmax(dim=1)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=7, n_bins=15, norm="l1")
    assert reliability(probabilities, labels).error == pytest.approx(expected.item(), abs=1e-6)


def test_a_bin_holds_its_upper_end_and_shares_add_up() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.61, 0.39]], dtype=torch.float64)
    bins = reliability(probabilities, torch.tensor([0, 1, 0]))
    assert np.flatnonzero(bins.share).tolist() == [8, 9, 14]
    assert bins.accuracy[[8, 9, 14]].tolist() == [0, 1, 1]
    assert bins.share.sum() == pytest.approx(1)
    assert bins.error == pytest.approx((0.6 + 0.39) / 3)
