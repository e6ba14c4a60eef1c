"""The plots of a run: learning curves and confusion matrix."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

# Okabe and Ito's colours, which stay apart for colour-blind readers; the map is cividis for the same reason.
TRAIN_COLOR, VAL_COLOR, LR_COLOR = "#0072B2", "#D55E00", "#009E73"
COLOR_MAP = "cividis"
DPI = 120
COMPRESSION = 1  # of 9: larger files, written three times as fast
MOST_ANNOTATED = 20  # classes; beyond it the counts in the cells cannot be read
MOST_TICKS = 40
MOST_NAMED = 3  # phases; more names would cover each other
NAME_LENGTH = 18


def save_picture(figure: Figure, place: Path | BinaryIO) -> None:
    """Write `figure` as a PNG to a path or into an open file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # as of Chinese names: a box stands for the letter
        figure.savefig(place, dpi=DPI, format="png", pil_kwargs={"compress_level": COMPRESSION})


def learning_curves(epochs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, accuracy and learning rate by epoch, and where phases begin; of what is solved, what was tried.

    Args:
        epochs: one row an epoch with "epoch", "phase" and the metrics; a value may be None or missing.
    """
    figure = Figure(figsize=(12, 3.8))
    figure.subplots_adjust(left=0.045, right=0.985, bottom=0.13, top=0.91, wspace=0.2)  # a layout engine draws twice
    left, middle, right = figure.subplots(1, 3)
    _curves(left, epochs, {"train": ("train/loss", TRAIN_COLOR), "val": ("val/loss", VAL_COLOR)}, title="Loss")
    _curves(middle, epochs, {"train": ("train/acc", TRAIN_COLOR), "val": ("val/acc", VAL_COLOR)}, title="Accuracy")
    tried = {key.removeprefix("strategy/"): (key, LR_COLOR) for key in epochs[0] if key.startswith("strategy/")}
    if tried:
        _curves(right, epochs, tried, title=f"What each epoch tried: {', '.join(tried)}")
        right.set_yscale("log")
    else:
        _curves(right, epochs, {"lr": ("lr", LR_COLOR)}, title="Learning rate at the end of the epoch")
    _mark_best(middle, epochs)
    for axes in (left, middle, right):
        _mark_phases(axes, epochs, named=axes is right)
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


def _mark_phases(axes: Axes, epochs: Sequence[Mapping[str, Any]], *, named: bool) -> None:
    """Draw a line before the first epoch of each phase but the first; at their tops the names, if there is room."""
    begins = [now for before, now in pairwise(epochs) if before.get("phase") != now.get("phase")]
    for row in begins:
        axes.axvline(row["epoch"] - 0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        if named and len(begins) <= MOST_NAMED:
            place = (row["epoch"] - 0.5, 1.0)
            offset = {"xytext": (3, -9), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
            axes.annotate(row["phase"], place, fontsize=8, color="0.4", **offset)


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
    figure = Figure(figsize=(side + 1.0, side))
    # Margins by the length of the names: a layout engine would draw the figure twice.
    margin = 0.55 + 0.1 * max(len(_short(name)) for name in class_names)
    width, height = figure.get_size_inches()
    box = min(width - margin - 1.3, height - margin - 0.5)
    axes = figure.add_axes((margin / width, (height - 0.5 - box) / height, box / width, box / height))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    norm = PowerNorm(0.5, vmin=0.0, vmax=1.0)  # so that a few mistakes among many images can be seen
    drawn = axes.imshow(share, cmap=COLOR_MAP, norm=norm)
    scale = figure.add_axes(((margin + box + 0.2) / width, axes.get_position().y0, 0.18 / width, box / height))
    figure.colorbar(drawn, cax=scale, label="share of the true class")
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


def _short(name: str) -> str:
    """Return a name that fits: the middle goes, since names often differ at the end; `$` is no formula here."""
    if len(name) > NAME_LENGTH:
        name = f"{name[: NAME_LENGTH // 2]}…{name[-(NAME_LENGTH // 2 - 1) :]}"
    return name.replace("$", r"\$")
