"""The test images that no run got right: what they show, and what the runs took them for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tl_experiments.sweep.comparison import Comparison
from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.predictions import Predictions, read_predictions
from tl_experiments.sweep.report.pictures import UNREADABLE, draw_test_images

MOST_SHOWN = 24


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
    runs = _same_data(comparison, best, first)
    everywhere = np.flatnonzero(np.all([~said.right for said in runs], axis=0))
    of_runs = f"all {len(runs)} finished runs" if len(runs) > 1 else "the only finished run"
    if len(comparison.rows) and len(runs) < sum(len(row.outcomes) for row in comparison.rows):
        of_runs += " that predicted the winner's test images"
    if not len(everywhere):
        return Mistakes(f"No test image was classified wrongly by {of_runs}.")
    confidence = np.mean([said.confidence for said in runs], axis=0)
    order = everywhere[np.argsort(-confidence[everywhere], kind="stable")][:MOST_SHOWN]
    mistakes = [_mistake(int(index), runs, float(confidence[index])) for index in order]
    shown = f" The {len(order)} most confident are shown." if len(order) < len(everywhere) else ""
    verb = "was" if len(everywhere) == 1 else "were"
    sentence = (
        f"{len(everywhere):,} of {len(first.images):,} test images {verb} classified wrongly by {of_runs}.{shown}"
    )
    try:
        pictures = draw_test_images(plan.member(best.job, folder=folder), said=first, positions=order)
    except UNREADABLE as error:
        return Mistakes(sentence, tuple(mistakes), f"The pictures cannot be shown: {str(error).rstrip('.')}.")
    return Mistakes(sentence, tuple(replace(m, picture=p) for m, p in zip(mistakes, pictures, strict=True)))


def _same_data(comparison: Comparison, best: Outcome, first: Predictions) -> list[Predictions]:
    """Return what the runs on the winner's data said of its test images."""
    data = best.result.get("dataset_fingerprint")
    found = (
        read_predictions(outcome.folder)
        for row in comparison.rows
        for outcome in row.outcomes
        if outcome.result.get("dataset_fingerprint") == data
    )
    return [said for said in found if said and said.same_test(first)]


def _mistake(index: int, runs: Sequence[Predictions], confidence: float) -> Mistake:
    said = Counter(run.predicted[index] for run in runs)
    return Mistake(runs[0].images[index], runs[0].classes[index], dict(said.most_common()), confidence)
