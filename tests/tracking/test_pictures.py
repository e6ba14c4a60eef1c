"""The pictures are written, show what they should, and survive odd input."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tl_experiments.tracking.pictures import confusion_matrix, learning_curves, save_picture


def saved(figure: Figure, tmp_path: Path) -> None:
    """Write the figure and check that it is no blank sheet."""
    save_picture(figure, tmp_path / "picture.png")
    colors = Image.open(tmp_path / "picture.png").convert("RGB").getcolors(maxcolors=2**24)
    assert colors is not None
    assert len(colors) > 10


def epochs(count: int) -> list[dict]:
    rows = []
    for epoch in range(1, count + 1):
        row = {"epoch": epoch, "train/loss": 1 / epoch, "val/loss": 1.1 / epoch, "lr": 1e-3}
        rows.append(row | {"train/acc": 1 - 0.5**epoch, "val/acc": min(0.9, 1 - 0.6**epoch)})
    return rows


@pytest.mark.parametrize("count", [1, 10])
def test_learning_curves_draw_every_series(count: int, tmp_path: Path) -> None:
    figure = learning_curves(epochs(count))
    lines = [line for axes in figure.axes for line in axes.lines]
    assert [len(line.get_xydata()) for line in lines] == [count, count, count, count, 1, count]
    saved(figure, tmp_path)


def test_where_another_phase_begins_there_is_a_line(tmp_path: Path) -> None:
    rows = [row | {"phase": "probe" if row["epoch"] <= 4 else "finetune"} for row in epochs(10)]
    figure = learning_curves(rows)
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [4.5]
    assert [text.get_text() for text in figure.axes[2].texts] == ["finetune"]
    saved(figure, tmp_path)


@pytest.mark.parametrize(("same_loss", "best"), [(False, 10), (True, 5)])
def test_the_epoch_whose_weights_are_kept_is_marked(same_loss: bool, best: int) -> None:
    """Highest val/acc; of equal ones lowest val/loss; of those the first, as `BestWeights` keeps them."""
    rows = [row | ({"val/loss": 0.5} if same_loss else {}) for row in epochs(10)]
    labels = [text.get_text() for text in learning_curves(rows).axes[1].get_legend().get_texts()]
    assert labels == ["train", "val", f"best 0.9000 at epoch {best}"]


def test_an_epoch_that_diverged_leaves_a_gap(tmp_path: Path) -> None:
    rows = epochs(3)
    rows[1] |= {"train/loss": None, "val/acc": float("nan")}
    figure = learning_curves(rows)
    losses, accuracies = (axes.lines[line].get_ydata() for axes, line in zip(figure.axes, (0, 1), strict=False))
    assert np.isnan(losses).tolist() == np.isnan(accuracies).tolist() == [False, True, False]
    saved(figure, tmp_path)
    saved(learning_curves([row | {"val/acc": None} for row in rows]), tmp_path)


@pytest.mark.parametrize(("num_classes", "annotated"), [(2, True), (10, True), (100, False)])
def test_confusion_matrix_names_classes_and_counts(num_classes: int, annotated: bool, tmp_path: Path) -> None:
    counts = np.diag(np.arange(5, 5 + num_classes))
    counts[0, 1] = 3
    figure = confusion_matrix(counts, [f"class {i}" for i in range(num_classes)])
    axes = figure.axes[0]
    cells = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    if annotated:
        assert cells[0, 1] == "3"  # row: true class, column: predicted class
        assert len(cells) == num_classes + 1  # zeros stay empty
    else:
        assert cells == {}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "class 0"
    assert len(names) <= 40
    saved(figure, tmp_path)


def test_a_class_without_images_or_with_a_name_like_a_formula_is_drawn(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    saved(confusion_matrix(np.array([[3, 0], [0, 0]]), ["a", "$b_$"]), tmp_path)
    saved(confusion_matrix(np.zeros((2, 2), dtype=int), ["a", "b"]), tmp_path)
    assert not recwarn.list


def test_long_class_names_stay_distinct() -> None:
    figure = confusion_matrix(np.eye(3, dtype=int), [f"a very long name of a class {i}" for i in range(3)])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 18
