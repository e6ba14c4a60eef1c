"""The curve of a range test, as files; a run that goes on reads its own again."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from tl_experiments.engine.lr_finder import RangeTest, suggest
from tl_experiments.runtime.files import publish_text
from tl_experiments.tracking.pictures import LR_COLOR, TRAIN_COLOR, save_picture

PICTURE, CURVE = "lr_finder.png", "lr_finder.csv"


def write_range(found: RangeTest, folder: Path) -> tuple[Path, ...]:
    """Write the curve into `folder`, as a picture and as numbers; returns the paths."""
    rows = zip(found.rates, found.losses, found.smoothed, strict=True)
    lines = ["lr,loss,smoothed", *(f"{rate!r},{loss!r},{smoothed!r}" for rate, loss, smoothed in rows)]
    publish_text(folder / CURVE, "\n".join(lines) + "\n")
    save_picture(range_picture(found), folder / PICTURE)
    return folder / PICTURE, folder / CURVE


def read_range(folder: Path) -> RangeTest | None:
    """Return what `write_range` wrote into `folder`, to the bit; None where it wrote nothing."""
    path = folder / CURVE
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rates, losses, smoothed = (tuple(float(row[name]) for row in rows) for name in ("lr", "loss", "smoothed"))
    return RangeTest(rates, losses, smoothed, suggest(rates, smoothed))


def range_picture(found: RangeTest) -> Figure:
    """Draw loss against rate, and mark the suggestion."""
    figure = Figure(figsize=(7, 4.2))
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.13, top=0.91)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color=TRAIN_COLOR, alpha=0.25, linewidth=1.0, label="of each batch")
    axes.plot(found.rates, found.smoothed, color=TRAIN_COLOR, linewidth=1.8, label="smoothed")
    axes.axvline(found.suggestion, color=LR_COLOR, linestyle="--", label=f"suggestion {found.suggestion:.3g}")
    lowest, first = min(found.smoothed), found.smoothed[0]
    axes.set_ylim(min(lowest, min(found.losses)) - 0.05 * first, 1.5 * first)
    axes.set_xscale("log")
    axes.set_title("Loss while the learning rate rises", fontsize=11)
    axes.set_xlabel("learning rate")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
