"""The picture that tells how far confidence can be believed: a reliability diagram, before and after calibration."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_experiments.engine.calibration import NUM_BINS, Reliability
from tl_experiments.tracking.pictures import TRAIN_COLOR

SHARE_COLOR = "#BBBBBB"


def reliability_diagram(before: Reliability, *, after: Reliability, temperature: float) -> Figure:
    """Draw accuracy by confidence, where the diagonal is what was promised, and the share of images in each bin.

    Args:
        before: of the probabilities as they are.
        after: of those whose logits were divided by the temperature.
        temperature: above 0.
    """
    figure = Figure(figsize=(9.2, 4.5))
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.115, top=0.92, wspace=0.16)  # a layout engine draws twice
    left, right = figure.subplots(1, 2)
    _draw(left, before, title=f"Before: calibration error {before.error:.4f}")
    _draw(right, after, title=f"After, temperature {temperature:.3g}: calibration error {after.error:.4f}")
    left.set_ylabel("share that is right")
    left.legend(frameon=False, loc="upper left")
    return figure


def _draw(axes: Axes, bins: Reliability, *, title: str) -> None:
    seen = bins.share > 0
    axes.stairs(bins.share, np.linspace(0, 1, NUM_BINS + 1), fill=True, color=SHARE_COLOR, label="share of the images")
    axes.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
    axes.plot(bins.confidence[seen], bins.accuracy[seen], "o-", color=TRAIN_COLOR, markersize=5, label="accuracy")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("confidence")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
