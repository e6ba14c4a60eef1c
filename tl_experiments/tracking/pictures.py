"""The pictures of a run: learning curves, confusion matrix, and the test images it got most confidently wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

# Okabe and Ito's colours, which stay apart for colour-blind readers; the map is cividis for the same reason.
TRAIN_COLOR, VAL_COLOR, LR_COLOR = "#0072B2", "#D55E00", "#009E73"
COLOR_MAP = "cividis"
DPI = 150
MOST_ANNOTATED = 20  # classes; beyond it the counts in the cells cannot be read
MOST_TICKS = 40
NAME_LENGTH = 18
TILE_PIXELS = 160  # images that are smaller are enlarged by whole pixels, so that their pixels stay visible


def save_picture(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG."""
    figure.savefig(path, dpi=DPI, format="png")


def learning_curves(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, accuracy and learning rate by epoch.

    Args:
        epochs: one row an epoch with "epoch" and the metrics; a value may be None or missing.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _curves(left, epochs, {"train": ("train/loss", TRAIN_COLOR), "val": ("val/loss", VAL_COLOR)}, title="Loss")
    _curves(middle, epochs, {"train": ("train/acc", TRAIN_COLOR), "val": ("val/acc", VAL_COLOR)}, title="Accuracy")
    _curves(right, epochs, {"lr": ("lr", LR_COLOR)}, title="Learning rate at the end of the epoch")
    _mark_best(middle, epochs)
    left.legend(frameon=False)
    middle.legend(frameon=False)
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    return figure


def _column(epochs: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else row[key] for row in epochs], dtype=float)


def _curves(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], series: Mapping[str, tuple[str, str]], *, title: str
) -> None:
    steps = _column(epochs, "epoch")
    for label, (key, color) in series.items():
        axes.plot(steps, _column(epochs, key), color=color, marker="o", markersize=3.5, linewidth=1.8, label=label)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(steps[0] - 0.3, steps[-1] + 0.3)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_best(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Ring the best val/acc; of equal ones that of lowest val/loss, whose weights are kept."""
    accuracy = _column(epochs, "val/acc")
    if np.isnan(accuracy).all():
        return
    loss = _column(epochs, "val/loss")
    best = int(np.lexsort((loss, -accuracy))[0])  # nan sorts last
    step = epochs[best]["epoch"]
    label = f"best {accuracy[best]:.4f} at epoch {step}"
    axes.plot([step], [accuracy[best]], "o", markersize=10, mfc="none", mec=VAL_COLOR, mew=1.5, label=label)


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw how often each true class (rows) was predicted as each class (columns), coloured by the share of its row.

    Args:
        counts: (C, C) integers, row = true class, column = predicted class.
        class_names: C names.
    """
    num_classes = len(class_names)
    side = float(np.clip(0.5 * num_classes + 2.2, 5.0, 12.0))
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    norm = PowerNorm(0.5, vmin=0.0, vmax=1.0)  # so that a few mistakes among many images can be seen
    drawn = axes.imshow(share, cmap=COLOR_MAP, norm=norm)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"Confusion matrix: {counts.sum():,} images, {accuracy:.2%} right", fontsize=11)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    _label_classes(axes, class_names, cell_inches=(side - 2.0) / num_classes)
    if num_classes <= MOST_ANNOTATED:
        _annotate(axes, counts, share)
    return figure


def _label_classes(axes: Axes, class_names: Sequence[str], *, cell_inches: float) -> None:
    """Name every class where there is room, every n-th beyond; names too wide for their column stand upright."""
    ticks = range(0, len(class_names), -(-len(class_names) // MOST_TICKS))
    labels = [_short(class_names[tick]) for tick in ticks]
    size = 10 if len(class_names) <= MOST_ANNOTATED else 7
    fits = max(map(len, labels)) * size * 0.7 / 72 < cell_inches
    axes.set_xticks(ticks, labels, fontsize=size, rotation=0 if fits else 90)
    axes.set_yticks(ticks, labels, fontsize=size)


def _annotate(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    """Write the counts into the cells that are not zero, in the tone that the cell's colour leaves readable."""
    size = 10 if len(counts) <= 10 else 7
    for row, column in np.argwhere(counts > 0):
        color = "black" if share[row, column] > 0.25 else "white"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=size)


def wrong_gallery(
    images: np.ndarray,
    names: Sequence[str],
    *,
    true: Sequence[int],
    predicted: Sequence[int],
    confidence: Sequence[float],
    class_names: Sequence[str],
) -> Figure:
    """Draw wrongly classified images in the given order, each with its true and its predicted class and its name.

    Args:
        images: (N, 3, H, W) uint8; N may be 0.
        names: of the N images, such as paths below the root.
        true: N class indices.
        predicted: N class indices.
        confidence: N probabilities of the predicted class, 0 to 1.
        class_names: names by class index.
    """
    num_columns = min(6, max(len(images), 3))
    num_rows = max(1, -(-len(images) // num_columns))
    height = 2.55 * num_rows + 0.4 if len(images) else 0.6
    figure = Figure(figsize=(2.1 * num_columns, height), layout="constrained")
    figure.suptitle("Most confidently wrong test images" if len(images) else "No test image was classified wrongly")
    grid = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for axes in grid:
        axes.axis("off")
    for index, (axes, image) in enumerate(zip(grid, images, strict=False)):
        axes.imshow(enlarge(image))
        right, wrong = _short(class_names[true[index]]), _short(class_names[predicted[index]])
        axes.set_title(f"pred {wrong} · {confidence[index]:.0%}\ntrue {right}", fontsize=8.5)
        file = _short(names[index], length=30)
        axes.text(0.5, -0.02, file, fontsize=6.5, ha="center", va="top", transform=axes.transAxes)
    return figure


def enlarge(image: np.ndarray) -> np.ndarray:
    """Return a (3, H, W) uint8 image as (H, W, 3), a small one enlarged by a whole factor without smoothing."""
    picture = np.ascontiguousarray(image.transpose(1, 2, 0))
    height, width = picture.shape[:2]
    factor = max(1, TILE_PIXELS // max(height, width))
    return np.asarray(Image.fromarray(picture).resize((width * factor, height * factor), Image.Resampling.NEAREST))


def _short(name: str, *, length: int = NAME_LENGTH) -> str:
    """Return a name that fits: the middle goes, since names often differ at the end; `$` is no formula here."""
    if len(name) > length:
        name = f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"
    return name.replace("$", r"\$")
