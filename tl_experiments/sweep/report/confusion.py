"""The confusion matrices of the best rows, the seeds of each added up."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_experiments.sweep.comparison import Comparison, Row
from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.predictions import Predictions, read_predictions

MOST_SHOWN = 6  # rows
MOST_CLASSES = 200  # beyond it a cell is smaller than a pixel or two


@dataclass(frozen=True)
class Confusion:
    """How often the runs of a row said each class for each true class.

    Attributes:
        row: whose runs.
        num_runs: whose predictions were found.
        class_names: C of them.
        counts: (C, C) integers, row = true class, column = predicted class.
    """

    row: Row
    num_runs: int
    class_names: tuple[str, ...]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right predictions, 0 to 1."""
        return float(np.trace(self.counts) / max(self.counts.sum(), 1))


def confusions(comparison: Comparison) -> tuple[list[Confusion], str]:
    """Return the matrices to show, best row first, and a sentence about those that are not; it may be empty."""
    shown = [found for row in comparison.rows[:MOST_SHOWN] if (found := _confusion(row))]
    drawn = [matrix for matrix in shown if len(matrix.class_names) <= MOST_CLASSES]
    sentences = []
    if (left := len(comparison.rows) - MOST_SHOWN) > 0:
        sentences.append(f"{left} further row{'s are' if left > 1 else ' is'} not shown.")
    if len(shown) < len(comparison.rows[:MOST_SHOWN]):
        sentences.append("Where a run's predictions.csv is missing or cannot be read, its matrix is left out.")
    if len(drawn) < len(shown):
        sentences.append(f"Matrices of more than {MOST_CLASSES} classes are not drawn.")
    return drawn, " ".join(sentences)


def _confusion(row: Row) -> Confusion | None:
    found = [(outcome, said) for outcome in row.outcomes if (said := read_predictions(outcome.folder))]
    if not found:
        return None
    names = _class_names(found[0][0], [said for _, said in found])
    position = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for _, said in found:
        true = [position[name] for name in said.classes]
        np.add.at(counts, (true, [position[name] for name in said.predicted]), 1)
    return Confusion(row, len(found), names, counts)


def _class_names(outcome: Outcome, predictions: Sequence[Predictions]) -> tuple[str, ...]:
    """Return the names in the order of the model's labels; sorted where its file does not tell."""
    seen = {name for said in predictions for name in (*said.classes, *said.predicted)}
    try:
        names = json.loads((outcome.folder / "model" / "model.json").read_text(encoding="utf-8"))["class_names"]
    except (OSError, ValueError, KeyError):
        names = []
    return tuple(names) if seen <= set(names) else tuple(sorted(seen))
