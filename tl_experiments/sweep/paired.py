"""Whether one run classifies the same images better than another: McNemar's test, a bootstrap, Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.05  # of significance; the interval is that of 1 - LEVEL
RESAMPLES = 10_000
SEED = 0  # so that the interval of two runs is the same whenever it is asked for


@dataclass(frozen=True)
class Paired:
    """Two runs on the same N images.

    Attributes:
        num_images: N.
        only_first, only_second: images that one of both alone gets right.
        p_value: of McNemar's exact test.
        difference: accuracy of the second minus that of the first, -1 to 1.
        low, high: ends of the 95 % bootstrap interval of the difference.
    """

    num_images: int
    only_first: int
    only_second: int
    p_value: float
    difference: float
    low: float
    high: float


def pair(first: np.ndarray, *, second: np.ndarray) -> Paired:
    """Compare two runs, each given as (N,) bool: whether it classified each image rightly; N is at least one."""
    num_images = len(first)
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    low, high = bootstrap_interval(only_first, only_second=only_second, num_images=num_images)
    return Paired(
        num_images=num_images,
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second=only_second),
        difference=(only_second - only_first) / num_images,
        low=low,
        high=high,
    )


def mcnemar(only_first: int, *, only_second: int) -> float:
    """Return the p-value of McNemar's exact test (Dietterich 1998), 0 to 1.

    Of the images that only one of both gets right, is the share of each near one half?
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def bootstrap_interval(only_first: int, *, only_second: int, num_images: int) -> tuple[float, float]:
    """Return the paired percentile bootstrap interval of the difference of two accuracies (Efron & Tibshirani 1993).

    To draw N images with replacement is to draw how many of them either run alone gets right from a multinomial
    distribution, which takes no time and no memory however many images there are.
    """
    shares = np.array([only_first, only_second, num_images - only_first - only_second]) / num_images
    drawn = np.random.default_rng(SEED).multinomial(num_images, shares, size=RESAMPLES)
    differences = (drawn[:, 1] - drawn[:, 0]) / num_images
    low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the given order, each at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
