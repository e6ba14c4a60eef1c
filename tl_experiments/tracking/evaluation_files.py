"""What the test split showed, as files: predictions, confusion matrix, per-class table, reliability, mistakes.

Every confidence is the calibrated one, after temperature scaling.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.transforms import Canvas, centre_crop
from tl_experiments.engine.calibration import reliability
from tl_experiments.runtime.errors import DataError
from tl_experiments.tracking.gallery import Mistake, wrong_gallery
from tl_experiments.tracking.pictures import COMPRESSION, confusion_matrix, save_picture
from tl_experiments.tracking.reliability import reliability_diagram

FILES = ("confusion_matrix.png", "per_class.csv", "reliability.png", "wrong_gallery.png", "predictions.csv")
GALLERY_SIZE = 24


class PicturedImages(Protocol):
    """The images that were tested."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def canvas(self) -> Canvas: ...

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield uint8 (B, 3, C, C) for each array of positions; raises DataError where an image is gone."""
        ...


def write_evaluation(
    folder: Path,
    *,
    logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    images: PicturedImages,
    class_names: Sequence[str],
) -> tuple[Path, ...]:
    """Write the files into `folder` and return their paths.

    Args:
        folder: exists.
        logits: (N, C) float32.
        labels: (N,) int64.
        temperature: by which logits are divided to be calibrated.
        images: the N images of the split.
        class_names: C of them.
    """
    paths = tuple(folder / name for name in FILES)
    counts, scores = _measure(logits, labels, num_classes=len(class_names))
    save_picture(confusion_matrix(counts, class_names), paths[0])
    _write_per_class(paths[1], scores, support=counts.sum(axis=1).tolist(), class_names=class_names)
    exact = logits.double().contiguous()  # the layout decides bits, and is another one in a bank
    probabilities = (exact / temperature).softmax(dim=-1)
    before = reliability(exact.softmax(dim=-1), labels)
    after = reliability(probabilities, labels)
    save_picture(reliability_diagram(before, after=after, temperature=temperature), paths[2])
    _draw_gallery(paths[3], probabilities, labels, images, class_names)
    _write_predictions(paths[4], probabilities, labels, images, class_names)
    return paths


def _measure(logits: torch.Tensor, labels: torch.Tensor, *, num_classes: int) -> tuple[np.ndarray, list[list[float]]]:
    """Return the confusion matrix, (C, C) int64 by true and predicted class, and precision, recall and F1 by class."""
    from sklearn import metrics  # noqa: PLC0415 - a second that a plan must not wait for

    classes, true, predicted = range(num_classes), labels.numpy(), logits.argmax(dim=-1).numpy()
    counts = metrics.confusion_matrix(true, predicted, labels=classes)
    by_class = metrics.precision_recall_fscore_support(
        true,
        predicted,
        labels=classes,
        zero_division=0.0,  # pyright: ignore[reportArgumentType] - documented, but typed as str
    )
    return counts, [np.asarray(scores).tolist() for scores in by_class[:3]]


def _write_predictions(
    path: Path, probabilities: torch.Tensor, labels: torch.Tensor, images: PicturedImages, class_names: Sequence[str]
) -> None:
    """Write a line for each image of the split, in its order."""
    confidence, predicted = probabilities.max(dim=-1)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "predicted", "confidence"])
        rows = zip(images.names, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
        for name, label, guess, sure in rows:
            writer.writerow([name, class_names[label], class_names[guess], f"{sure:.4f}"])


def _write_per_class(
    path: Path, scores: Sequence[Sequence[float]], *, support: Sequence[int], class_names: Sequence[str]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "precision", "recall", "f1", "images"])
        for name, precision, recall, f1, count in zip(class_names, *scores, support, strict=True):
            writer.writerow([name, f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", count])


def _draw_gallery(
    path: Path, probabilities: torch.Tensor, labels: torch.Tensor, images: PicturedImages, class_names: Sequence[str]
) -> None:
    confidence, predicted = probabilities.max(dim=-1)
    wrong = torch.nonzero(predicted != labels).flatten()
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:GALLERY_SIZE].numpy()
    mistakes = [
        Mistake(
            image=crop if crop is not None else _grey(images),
            name=images.names[int(index)] if crop is not None else f"gone: {images.names[int(index)]}",
            true=class_names[int(labels[index])],
            predicted=class_names[int(predicted[index])],
            confidence=float(confidence[index]),
        )
        for index, crop in zip(worst.tolist(), _crops(images, worst), strict=True)
    ]
    wrong_gallery(mistakes).save(path, compress_level=COMPRESSION)


def _crops(images: PicturedImages, positions: np.ndarray) -> list[np.ndarray | None]:
    """Draw images, uint8 (3, C, C); None for one that is gone by now, which costs its picture and not the run."""
    if not len(positions):
        return []
    try:
        [canvases] = images.batches([positions])
    except DataError:
        one_by_one = [_crops(images, positions[i : i + 1]) for i in range(len(positions))] if len(positions) > 1 else []
        return [crop for crops in one_by_one for crop in crops] or [None]
    return list(centre_crop(canvases, images.canvas.crop).numpy())


def _grey(images: PicturedImages) -> np.ndarray:
    return np.full((3, images.canvas.crop, images.canvas.crop), 128, dtype=np.uint8)
