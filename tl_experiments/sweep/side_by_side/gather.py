"""Runs gathered for a comparison: what tells their settings apart, their figures, and what their answers prove."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep.comparison import MEASURED
from tl_experiments.sweep.notes import data_notes, made_otherwise
from tl_experiments.sweep.paired import LEVEL, Paired, holm, pair
from tl_experiments.sweep.side_by_side.compared_run import ComparedRun, read_compared
from tl_experiments.sweep.side_by_side.pairing import Common, common_images
from tl_experiments.sweep.side_by_side.settings import Differences, differing_settings
from tl_experiments.sweep.statistics import p_text

FIGURES = tuple(key for key in MEASURED if key != "run_id")
CAUTION = "This speaks of these runs on these test images, not of other seeds: several of each (seed=0,1,2) tell more."


@dataclass(frozen=True)
class Against:
    """A run against the first.

    Attributes:
        run: the later one.
        common: the test images that both saw.
        paired: what these prove; None where there are none.
        corrected: p-value of McNemar's test, corrected for the number of tests; None likewise.
    """

    run: ComparedRun
    common: Common
    paired: Paired | None
    corrected: float | None

    def sentence(self, num_tests: int) -> str:
        """Say in words what can be said.

        Args:
            num_tests: that the p-value is corrected for.
        """
        if self.paired is None or self.corrected is None:
            return f"{self.run.number} against 1: not compared image by image: {self.common.sentence}."
        paired = self.paired
        verdict = "can be told apart" if self.corrected < LEVEL else "cannot be told apart"
        correction = (
            f", {p_text(self.corrected)} after Holm's correction for {num_tests} tests" if num_tests > 1 else ""
        )
        return (
            f"{self.run.number} against 1: {verdict} at the {LEVEL:.0%} level: test/acc {paired.difference:+.4f} "
            f"(95% bootstrap interval {paired.low:+.4f} to {paired.high:+.4f}) on {self.common.sentence}; "
            f"{paired.only_first:,} only 1 gets right, {paired.only_second:,} only {self.run.number}; "
            f"McNemar's exact test p = {p_text(paired.p_value)}{correction}."
        )


@dataclass(frozen=True)
class Answer:
    """What a run said of an image.

    Attributes:
        predicted: name of a class.
        confidence: 0 to 1.
        right: whether it is the image's.
    """

    predicted: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class Disagreement:
    """An image of which runs say different classes.

    Attributes:
        position: among the predictions of the first run.
        image: its name.
        true: name of its class.
        answers: of the runs that answer, in order.
    """

    position: int
    image: str
    true: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class SideBySide:
    """Runs, compared.

    Attributes:
        runs: as they were named; at least two.
        settings: that differ.
        figures: metric → value of each run, None where it has none; of metrics that any run has.
        against: of each run but the first.
        answering: the runs whose answers to the same images are compared: the first, and those that share images
            with it; empty where there are none.
        num_common: images that all of these saw.
        disagreements: of these, the surest first.
        notes: sentences about what makes the runs less comparable than they look.
    """

    runs: tuple[ComparedRun, ...]
    settings: Differences
    figures: Mapping[str, tuple[Any, ...]]
    against: tuple[Against, ...]
    answering: tuple[ComparedRun, ...]
    num_common: int
    disagreements: tuple[Disagreement, ...]
    notes: tuple[str, ...]

    def verdicts(self) -> Iterator[str]:
        """Yield sentences for people: what the test images prove, and what they do not."""
        num_tests = sum(against.paired is not None for against in self.against)
        yield from (against.sentence(num_tests) for against in self.against)
        if num_tests:
            yield CAUTION

    def same_settings_sentence(self) -> str:
        """Say what is known where no setting differs."""
        known = all(run.config for run in self.runs)
        return "No setting differs that changes a result." if known else "No setting differs of those that can be read."

    def disagreement_sentence(self) -> str:
        """Say how many images are answered differently."""
        if not self.answering:
            return "There are no test images whose answers could be compared."
        runs = ", ".join(str(run.number) for run in self.answering)
        return (
            f"Of {self.num_common:,} test images that runs {runs} share they disagree on {len(self.disagreements):,}."
        )

    def disagreements_csv(self) -> str:
        """Return a line for each image of which the runs say different classes, the surest first."""
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        numbers = [run.number for run in self.answering]
        titles = [f"{what}_{number}" for number in numbers for what in ("predicted", "confidence")]
        writer.writerow(["image", "class", *titles])
        for item in self.disagreements:
            said = [cell for answer in item.answers for cell in (answer.predicted, f"{answer.confidence:.4f}")]
            writer.writerow([item.image, item.true, *said])
        return file.getvalue()


def compare_runs(folders: Sequence[Path]) -> SideBySide:
    """Compare runs, each with the first.

    Raises:
        SettingError: there are not two, one is named twice, or no run began in one of the folders.
    """
    if len(folders) < 2:
        raise SettingError(f"{len(folders)} run: expected two or more to compare")
    if twice := next((folder for index, folder in enumerate(folders) if folder in folders[:index]), None):
        raise SettingError(f"{twice}: named twice; expected different runs")
    runs = tuple(read_compared(folder, number=number) for number, folder in enumerate(folders, start=1))
    against = _against(runs)
    answering, positions = _answering(runs[0], against)
    figures = {key: tuple(run.fact(key) for run in runs) for key in FIGURES}
    contents = {run.fact("dataset_fingerprint") for run in runs}
    same_data = len(contents) == 1 and None not in contents
    results = [run.run.own_result for run in runs]
    data = [(run.dataset, result) for run, result in zip(runs, results, strict=True) if run.config]
    return SideBySide(
        runs=runs,
        settings=differing_settings(
            [run.config for run in runs],
            choices=[run.run.record.choices for run in runs],
            same_data=same_data,
        ),
        figures={key: row for key, row in figures.items() if any(value is not None for value in row)},
        against=against,
        answering=answering,
        num_common=len(positions[0]) if positions else 0,
        disagreements=_disagreements(answering, positions),
        notes=(*(() if same_data else data_notes(data)), *made_otherwise(results)),
    )


def _against(runs: Sequence[ComparedRun]) -> tuple[Against, ...]:
    first, found = runs[0], []
    for run in runs[1:]:
        common, paired = common_images(first, run), None
        if len(common) and first.predictions and run.predictions:
            paired = pair(first.predictions.right[common.first], second=run.predictions.right[common.second])
        found.append((run, common, paired))
    corrected = iter(holm([paired.p_value for *_, paired in found if paired]))
    return tuple(Against(run, common, paired, next(corrected) if paired else None) for run, common, paired in found)


def _answering(
    first: ComparedRun, against: Sequence[Against]
) -> tuple[tuple[ComparedRun, ...], tuple[np.ndarray, ...]]:
    """Return the runs that saw images of the first, and the positions of the images that all saw, for each run."""
    sharing = [item for item in against if item.paired]
    if not sharing:
        return (), ()
    shared = sharing[0].common.first
    for item in sharing[1:]:
        shared = np.intersect1d(shared, item.common.first)
    positions = [item.common.second[np.isin(item.common.first, shared)] for item in sharing]
    return (first, *(item.run for item in sharing)), (shared, *positions)


def _disagreements(runs: Sequence[ComparedRun], positions: Sequence[np.ndarray]) -> tuple[Disagreement, ...]:
    """List the images of which not all runs say the same class, that with the highest mean confidence first."""
    answers = [
        (predictions, places)
        for run, places in zip(runs, positions, strict=True)
        if (predictions := run.predictions) is not None
    ]
    if not answers:
        return ()
    said = np.array([[predictions.predicted[place] for place in places] for predictions, places in answers])
    sure = np.mean([predictions.confidence[places] for predictions, places in answers], axis=0)
    differ = np.flatnonzero((said != said[0]).any(axis=0))
    return tuple(_disagreement(answers, int(index)) for index in differ[np.argsort(-sure[differ], kind="stable")])


def _disagreement(answers: Sequence[tuple[Any, np.ndarray]], index: int) -> Disagreement:
    first, places = answers[0]
    position = int(places[index])
    true = first.classes[position]
    said = (
        Answer(
            predicted=predictions.predicted[places[index]],
            confidence=float(predictions.confidence[places[index]]),
            right=predictions.predicted[places[index]] == true,
        )
        for predictions, places in answers
    )
    return Disagreement(position=position, image=first.images[position], true=true, answers=tuple(said))
