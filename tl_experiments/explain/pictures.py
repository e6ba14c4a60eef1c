"""The picture of an explanation: what the model saw, where the evidence lies, and what it answered."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tl_experiments.explain.overlay import enlarged, overlay
from tl_experiments.explain.saliency import GRADCAM, Explanation
from tl_experiments.tracking.gallery import short

NUM_ANSWERS = 3
EXPLAINED_COLOR, OTHER_COLOR = "#D55E00", "#9aa5b1"
NAME_LENGTH, TITLE_LENGTH = 26, 100
WIDTH, HEIGHT, SQUARE, GAP = 10.6, 4.2, 3.2, 0.15  # inches, of the figure, of the two images and between them
BOTTOM = 0.58  # inches below the images


def explanation_picture(crop: np.ndarray, explanation: Explanation, *, name: str, class_names: Sequence[str]) -> Figure:
    """Draw an image, its heat map and its most probable classes.

    Args:
        crop: uint8 (3, S, S), what the model saw.
        explanation: of it.
        name: of the image.
        class_names: K.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT))
    figure.text(
        GAP / WIDTH,
        1 - 0.22 / HEIGHT,
        short(name, length=TITLE_LENGTH),
        fontsize=11,
        weight="bold",
        va="center",
        parse_math=False,
    )
    lefts = (GAP, 2 * GAP + SQUARE, 4 * GAP + 2 * SQUARE)
    widths = (SQUARE, SQUARE, WIDTH - lefts[2] - 4 * GAP)
    seen, over, answers = (
        figure.add_axes((left / WIDTH, BOTTOM / HEIGHT, width / WIDTH, SQUARE / HEIGHT))
        for left, width in zip(lefts, widths, strict=True)
    )
    seen.imshow(enlarged(crop))
    over.imshow(overlay(crop, explanation.heat))
    _caption(seen, "what the model sees")
    _caption(over, *_told(explanation, class_names))
    _bars(answers, explanation, class_names)
    for axes in (seen, over, answers):
        axes.set_axis_off()
    return figure


def _caption(axes: Axes, text: str, more: str = "") -> None:
    for line, size, color, y in ((text, 10, "black", -0.03), (more, 8, "dimgray", -0.1)):
        axes.text(
            0.5, y, line, ha="center", va="top", fontsize=size, color=color, transform=axes.transAxes, parse_math=False
        )


def _told(explanation: Explanation, class_names: Sequence[str]) -> tuple[str, str]:
    """Say what the heat map shows, and how it is to be read."""
    label = f"“{short(class_names[explanation.label], length=NAME_LENGTH)}”"
    if explanation.is_flat:
        return f"nothing here speaks for {label}", ""
    if explanation.method == GRADCAM:
        return f"what speaks for {label}", "Grad-CAM: yellow most, grey nothing"
    return f"which pixels matter for {label}", "gradients: yellow most, grey least"


def _bars(axes: Axes, explanation: Explanation, class_names: Sequence[str]) -> None:
    """Draw the most probable classes, and the explained one if it is not among them."""
    shown = [int(index) for index in np.argsort(-explanation.probabilities, kind="stable")[:NUM_ANSWERS]]
    if explanation.label not in shown:
        shown.append(explanation.label)
    axes.set_xlim(0, 1)
    axes.set_ylim(NUM_ANSWERS + 1, 0)
    axes.text(0, 0.06, "calibrated probability", va="top", fontsize=9, color="dimgray")
    for row, index in enumerate(shown):
        probability, y = float(explanation.probabilities[index]), 0.55 + 0.85 * row
        color = EXPLAINED_COLOR if index == explanation.label else OTHER_COLOR
        axes.barh(y + 0.28, 1.0, height=0.24, color="#eef0f2")
        axes.barh(y + 0.28, probability, height=0.24, color=color)
        label = short(class_names[index], length=NAME_LENGTH)
        axes.text(0, y + 0.1, label, va="bottom", fontsize=11, parse_math=False)
        axes.text(1, y + 0.1, f"{probability:.1%}", ha="right", va="bottom", fontsize=11)
