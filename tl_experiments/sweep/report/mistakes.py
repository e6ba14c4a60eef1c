"""The test images that no run got right: what they show, and what the runs took them for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tl_experiments.sweep.comparison import Comparison
from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.predictions import Predictions, read_predictions
from tl_experiments.sweep.report.pictures import UNREADABLE, draw_test_images

MOST_SHOWN = 24
MOST_RUNS = 500  # whose predictions are read; of further ones the best are meant


@dataclass(frozen=True)
class Mistake:
    """One image that all runs got wrong.

    Attributes:
        name: of the image.
        true: name of its class.
        said: class → number of runs that took it for that, most frequent first.
        confidence: mean over the runs of the probability of what they said, 0 to 1.
        picture: `data:` address of a PNG; None where it could not be read.
    """

    name: str
    true: str
    said: Mapping[str, int]
    confidence: float
    picture: str | None = None


@dataclass(frozen=True)
class Mistakes:
    """What all runs got wrong.

    Attributes:
        sentence: how many images, of how many runs.
        shown: the most confident ones, by mean confidence.
        problem: why there are no pictures; None where there are.
    """

    sentence: str
    shown: tuple[Mistake, ...] = ()
    problem: str | None = None


def common_mistakes(comparison: Comparison, *, plan: Plan, folder: Path) -> Mistakes:
    """Find the test images that every finished run on the winner's data got wrong.

    Args:
        comparison: of the sweep.
        plan: of the sweep, which tells where the images are.
        folder: of the sweep.
    """
    if comparison.winner is None:
        return Mistakes("No run finished.")
    best = comparison.winner.best
    first = read_predictions(best.folder)
    if first is None:
        return Mistakes("The predictions of the winner cannot be read.")
    runs, of_all = _same_data(comparison, best), sum(len(row.outcomes) for row in comparison.rows)
    wrong, confidence, num_runs = _everywhere(runs, first)
    everywhere = np.flatnonzero(wrong)
    of_runs = f"all {num_runs} finished runs" if num_runs > 1 else "the only finished run"
    if len(runs) == MOST_RUNS < of_all:
        of_runs = f"the best {num_runs} runs"
    if num_runs < min(of_all, MOST_RUNS):
        of_runs += " that predicted the winner's test images"
    if not len(everywhere):
        return Mistakes(f"No test image was classified wrongly by {of_runs}.")
    order = everywhere[np.argsort(-confidence[everywhere], kind="stable")][:MOST_SHOWN]
    mistakes = _mistakes(order, runs, first, confidence)
    shown = f" The {len(order)} most confident are shown." if len(order) < len(everywhere) else ""
    verb = "was" if len(everywhere) == 1 else "were"
    sentence = (
        f"{len(everywhere):,} of {len(first.images):,} test images {verb} classified wrongly by {of_runs}.{shown}"
    )
    try:
        pictures = draw_test_images(plan.member(best.job, folder=folder), said=first, positions=order)
    except UNREADABLE as error:
        return Mistakes(sentence, mistakes, f"The pictures cannot be shown: {str(error).rstrip('.')}.")
    return Mistakes(sentence, tuple(replace(m, picture=p) for m, p in zip(mistakes, pictures, strict=True)))


def _same_data(comparison: Comparison, best: Outcome) -> list[Path]:
    """Return the folders of the runs on the winner's data, best rows first; of more than can be read, the best."""
    data = best.result.get("dataset_fingerprint")
    runs = [
        outcome.folder
        for row in comparison.rows
        for outcome in row.outcomes
        if outcome.result.get("dataset_fingerprint") == data
    ]
    return runs[:MOST_RUNS]


def _on_test(runs: Sequence[Path], first: Predictions) -> Iterator[Predictions]:
    """Yield what each run said of the test images of the first, one in memory at a time."""
    return (said for folder in runs if (said := read_predictions(folder)) and said.same_test(first))


def _everywhere(runs: Sequence[Path], first: Predictions) -> tuple[np.ndarray, np.ndarray, int]:
    """Return which of the N images all runs got wrong, (N,) bool; their mean confidence, (N,); the number of runs."""
    wrong, confidence, num_runs = np.ones(len(first.images), dtype=bool), np.zeros(len(first.images)), 0
    for said in _on_test(runs, first):
        wrong &= ~said.right
        confidence += said.confidence
        num_runs += 1
    return wrong, confidence / max(num_runs, 1), num_runs


def _mistakes(
    positions: np.ndarray, runs: Sequence[Path], first: Predictions, confidence: np.ndarray
) -> tuple[Mistake, ...]:
    """Read the runs once more for what they took some images for."""
    said: list[Counter[str]] = [Counter() for _ in positions]
    for run in _on_test(runs, first):
        for counted, index in zip(said, positions, strict=True):
            counted[run.predicted[index]] += 1
    return tuple(
        Mistake(first.images[index], first.classes[index], dict(counted.most_common()), float(confidence[index]))
        for counted, index in zip(said, positions, strict=True)
    )
