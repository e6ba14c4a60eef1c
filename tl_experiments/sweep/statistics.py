"""What repeated runs have in common, and whether two configurations can be told apart at all."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import ttest_ind_from_stats

from tl_experiments.sweep.paired import LEVEL, mcnemar


@dataclass(frozen=True)
class Spread:
    """A mean over runs and how far they lie apart.

    Attributes:
        mean: of the values.
        sd: sample standard deviation (n - 1 in the denominator); None for one value.
        n: number of values.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self | None:
        """Return the spread of the values that are finite numbers; None where there is none."""
        known = [float(value) for value in values if value is not None and math.isfinite(value)]
        if not known:
            return None
        sd = statistics.stdev(known) if len(known) > 1 else None
        return cls(mean=statistics.mean(known), sd=sd, n=len(known))

    def text(self, form: str = ".4f") -> str:
        """Return the mean, and after ± the standard deviation where there is one.

        >>> Spread(mean=0.95, sd=0.01, n=3).text()
        '0.9500 ± 0.0100'
        """
        mean = format(self.mean, form)
        return mean if self.sd is None else f"{mean} ± {format(self.sd, form)}"


@dataclass(frozen=True)
class Sample:
    """What one configuration showed on the test split.

    Attributes:
        label: for people.
        accuracies: test/acc of its runs, one for each seed.
        right: (N,) bool, whether its only run classified each test image rightly; None where there are several runs
            or where that is not known.
    """

    label: str
    accuracies: tuple[float, ...]
    right: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether two configurations can be told apart.

    Attributes:
        different: True or False by a test at the 5 % level; None where no test can be made.
        p_value: of that test; None where no test can be made.
        sentence: the same in words, with the figures.
    """

    different: bool | None
    p_value: float | None
    sentence: str


def unknown(sentence: str) -> Verdict:
    """Return the verdict that there is nothing to say, and why."""
    return Verdict(different=None, p_value=None, sentence=sentence)


def judge(first: Sample, *, second: Sample) -> Verdict:
    """Compare two configurations by test/acc.

    Two seeds or more of both: Welch's t-test over the seeds. One run of both: McNemar's exact test over the test
    images (Dietterich 1998), for which `right` of both speaks of the same N images. Else nothing can be said.
    """
    fewest = min(len(first.accuracies), len(second.accuracies))
    if fewest >= 2:
        return _welch(first, second)
    if fewest == 1 == max(len(first.accuracies), len(second.accuracies)):
        return _mcnemar(first, second)
    lacking = first if len(first.accuracies) == fewest else second
    runs = "one run" if fewest else "no run"
    return unknown(
        f"Whether {first.label} and {second.label} differ cannot be said: of {lacking.label} there is {runs} with a "
        "test/acc, and a t-test needs two seeds or more of both."
    )


def _welch(first: Sample, second: Sample) -> Verdict:
    """Welch's t-test, which assumes no equal variances; where no seed changed anything it has nothing to weigh."""
    a, b = Spread.of(first.accuracies), Spread.of(second.accuracies)
    if a is None or b is None or a.sd is None or b.sd is None:
        raise ValueError("a t-test takes two finite values or more of both")
    figures = f"test/acc {a.text()} over {a.n} seeds against {b.text()} over {b.n}"
    if a.sd == b.sd == 0.0:
        same = "the same" if a.mean == b.mean else "different"
        return unknown(
            f"Whether {first.label} and {second.label} differ beyond chance cannot be tested: {figures}; the means "
            f"are {same}, and no seed changed them, so that there is no spread to weigh the difference against."
        )
    p_value = float(ttest_ind_from_stats(a.mean, a.sd, a.n, b.mean, b.sd, b.n, equal_var=False).pvalue)
    return _verdict(first, second, p_value, evidence=f"{figures}, Welch's t-test p = {p_text(p_value)}")


def _mcnemar(first: Sample, second: Sample) -> Verdict:
    """McNemar's exact test over the images that only one of both gets right."""
    if first.right is None or second.right is None or len(first.right) != len(second.right):
        return unknown(
            f"Whether {first.label} and {second.label} differ cannot be said: there is one run of each, and no "
            "predictions of both for the same test images. Several seeds (seed=0,1,2) would tell."
        )
    only_first = int(np.sum(first.right & ~second.right))
    only_second = int(np.sum(second.right & ~first.right))
    p_value = mcnemar(only_first, only_second=only_second)
    evidence = (
        f"test/acc {first.accuracies[0]:.4f} against {second.accuracies[0]:.4f}; of {len(first.right):,} test images "
        f"{only_first:,} only the former gets right and {only_second:,} only the latter, "
        f"McNemar's exact test p = {p_text(p_value)}"
    )
    caution = " This speaks of these two runs on this test set, not of other seeds: run several (seed=0,1,2) for that."
    return _verdict(first, second, p_value, evidence=evidence, caution=caution)


def _verdict(first: Sample, second: Sample, p_value: float, *, evidence: str, caution: str = "") -> Verdict:
    different = p_value < LEVEL
    answer = "can be told apart" if different else "cannot be told apart"
    sentence = f"{first.label} and {second.label} {answer} at the {LEVEL:.0%} level ({evidence}).{caution}"
    return Verdict(different=different, p_value=p_value, sentence=sentence)


def p_text(p_value: float) -> str:
    """Return a p-value as sentences tell it."""
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1e}"
