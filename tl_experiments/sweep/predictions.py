"""What a run said of the test images, read back from its folder."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """What one run said of the N test images, in their order.

    Attributes:
        images: names.
        classes: names of the true classes.
        predicted: names of the classes that the run said.
        confidence: (N,) probability of the predicted class, 0 to 1.
    """

    images: tuple[str, ...]
    classes: tuple[str, ...]
    predicted: tuple[str, ...]
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(N,) bool."""
        return np.array([true == said for true, said in zip(self.classes, self.predicted, strict=True)], dtype=bool)

    def same_test(self, other: "Predictions") -> bool:
        return self.images == other.images and self.classes == other.classes


def read_predictions(folder: Path) -> Predictions | None:
    """Return what a run said of the test images; None where its file is not there or is none of ours."""
    images, classes, predicted, confidence = [], [], [], []
    try:
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            next(lines, None)
            for image, true, said, sure in lines:  # strings are shared between runs, of which there may be hundreds
                images.append(sys.intern(image))
                classes.append(sys.intern(true))
                predicted.append(sys.intern(said))
                confidence.append(float(sure))
    except (OSError, ValueError, csv.Error):
        return None
    told = Predictions(tuple(images), tuple(classes), tuple(predicted), np.array(confidence, dtype=np.float32))
    return told if images else None
