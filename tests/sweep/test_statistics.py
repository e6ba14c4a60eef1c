"""Spreads are a statistician's, and a verdict claims no more than its test can carry."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from tl_experiments.sweep.statistics import Sample, Spread, judge


def test_a_spread_is_the_sample_standard_deviation_of_what_is_finite() -> None:
    assert Spread.of([0.8, 0.9, None, math.nan]) == Spread(
        mean=pytest.approx(0.85), sd=pytest.approx(0.1 / 2**0.5), n=2
    )
    assert Spread.of([0.8]) == Spread(mean=0.8, sd=None, n=1)
    assert Spread.of([None, math.inf]) is None


def test_seeds_are_compared_by_welchs_test() -> None:
    first, second = (0.90, 0.91, 0.93), (0.80, 0.84)
    verdict = judge(Sample("finetune", first), second=Sample("feature", second))
    assert verdict.p_value == pytest.approx(ttest_ind(first, second, equal_var=False).pvalue)
    assert verdict.different is (verdict.p_value < 0.05)
    assert "finetune and feature" in verdict.sentence
    assert "0.9133 ± 0.0153 over 3 seeds against 0.8200 ± 0.0283 over 2" in verdict.sentence


@pytest.mark.parametrize(("second", "different"), [((0.80, 0.81, 0.80), True), ((0.88, 0.95, 0.90), False)])
def test_the_level_is_five_percent(second: tuple[float, ...], different: bool) -> None:
    verdict = judge(Sample("a", (0.90, 0.91, 0.92)), second=Sample("b", second))
    assert verdict.different is different
    assert ("cannot be told apart" in verdict.sentence) is not different


@pytest.mark.parametrize("second", [(0.8, 0.8), (0.9, 0.9)])
def test_seeds_that_change_nothing_prove_nothing(second: tuple[float, ...]) -> None:
    """Zero variance would make any difference infinitely significant."""
    verdict = judge(Sample("a", (0.9, 0.9, 0.9)), second=Sample("b", second))
    assert (verdict.different, verdict.p_value) == (None, None)
    assert "no spread" in verdict.sentence


def test_one_side_without_variance_can_be_tested() -> None:
    verdict = judge(Sample("a", (0.9, 0.9, 0.9)), second=Sample("b", (0.7, 0.72, 0.71)))
    assert verdict.different is True


def test_single_runs_are_compared_by_mcnemars_exact_test() -> None:
    """9 images only the first gets right, 1 only the second: 2 · (1 + 10) / 2^10."""
    first, second = np.array([True] * 9 + [False] + [True] * 90), np.array([False] * 9 + [True] + [True] * 90)
    verdict = judge(Sample("a", (0.99,), first), second=Sample("b", (0.91,), second))
    assert verdict.p_value == pytest.approx(22 / 1024)
    assert verdict.different is True
    assert "9 only the former gets right and 1 only the latter" in verdict.sentence
    assert "not of other seeds" in verdict.sentence


def test_single_runs_that_agree_on_every_image_cannot_be_told_apart() -> None:
    right = np.array([True, False, True])
    verdict = judge(Sample("a", (0.67,), right), second=Sample("b", (0.67,), right))
    assert (verdict.different, verdict.p_value) == (False, 1.0)


def test_where_no_test_can_be_made_the_reason_is_told() -> None:
    verdict = judge(Sample("a", (0.9, 0.8)), second=Sample("b", (0.7,), np.array([True])))
    assert verdict.different is verdict.p_value is None
    assert "of b there is one run" in verdict.sentence
    verdict = judge(Sample("a", (0.9,), np.array([True])), second=Sample("b", (0.7,)))
    assert verdict.different is None
    assert "no predictions of both" in verdict.sentence
    assert "of b there is no run" in judge(Sample("a", (0.9, 0.8)), second=Sample("b", ())).sentence
