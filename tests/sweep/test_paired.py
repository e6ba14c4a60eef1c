"""Two runs on the same images: the tests say what statistics says, and the bootstrap is that of the images."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tl_experiments.sweep.paired import bootstrap_interval, holm, mcnemar, pair


def test_a_pair_counts_what_either_alone_gets_right() -> None:
    first, second = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([1, 0, 0, 1, 0], dtype=bool)
    paired = pair(first, second=second)
    assert (paired.num_images, paired.only_first, paired.only_second) == (5, 2, 1)
    assert paired.difference == pytest.approx(-0.2)
    assert paired.low <= paired.difference <= paired.high


def test_mcnemars_test_is_a_binomial_one_of_the_discordant() -> None:
    assert mcnemar(1, only_second=9) == pytest.approx(binomtest(1, 10).pvalue) == pytest.approx(0.0215, abs=1e-4)
    assert mcnemar(9, only_second=1) == mcnemar(1, only_second=9)
    assert mcnemar(0, only_second=0) == 1.0


def test_the_interval_is_that_of_images_drawn_again_one_by_one() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.7
    drawn = rng.integers(400, size=(20_000, 400))
    differences = second[drawn].mean(axis=1) - first[drawn].mean(axis=1)
    paired = pair(first, second=second)
    assert (paired.low, paired.high) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.004)


def test_the_interval_is_the_same_whenever_it_is_asked_for() -> None:
    low, high = bootstrap_interval(30, only_second=10, num_images=1_000_000)
    assert (low, high) == bootstrap_interval(30, only_second=10, num_images=1_000_000)
    assert low < -20e-6 < high < 0


def test_equal_runs_have_no_difference() -> None:
    right = np.array([True, False, True])
    paired = pair(right, second=right)
    assert (paired.difference, paired.low, paired.high, paired.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([0.02], [0.02]), ([], [])],
)
def test_holms_correction(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)
