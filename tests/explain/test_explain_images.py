"""`tlx explain` writes a picture for each image, and one that is bad harms no other."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.digit_files import RUN, write_digits
from tl_experiments.cli.verbs import main


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_digits(tmp_path / "digits", 3)  # 0/0.png, 1/1.png, 2/2.png
    return tmp_path / "digits"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def explain(output: Path, *arguments: Path | str) -> int:
    return main(["explain", str(RUN), *map(str, arguments), "--output", str(output), "--device", "cpu"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_image_has_a_picture_that_names_it_and_a_row(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(output, images) == 0
    assert names(output) == {"0.png", "1.png", "2.png"}
    said = capsys.readouterr().out
    for label in ("0", "1", "2"):
        [row] = [line for line in said.splitlines() if f"/{label}/{label}.png" in line]
        assert [cell.strip() for cell in row.split("│")][2] == label
        assert "%" in row
    assert f"3 explained, 0 bad: {output}" in said


def test_the_picture_shows_the_image_as_it_is_and_in_colours_where_it_speaks(images: Path, output: Path) -> None:
    explain(output, images / "0" / "0.png")
    with Image.open(output / "0.png") as picture:
        colours = np.asarray(picture.convert("RGB")).astype(int)
    coloured = (colours.max(axis=2) - colours.min(axis=2)) > 60
    left, middle = coloured[60:400, 20:400], coloured[60:400, 420:800]
    assert not left.any()  # a digit is grey
    assert 0.05 < middle.mean() < 0.9


def test_a_picture_is_the_same_again_and_another_one_for_another_class(images: Path, tmp_path: Path) -> None:
    asked = {"a": (), "b": (), "c": ("--class", "8"), "d": ("--method", "gradients")}
    for name, arguments in asked.items():
        assert explain(tmp_path / name, images / "0" / "0.png", *arguments) == 0
    pictures = {name: (tmp_path / name / "0.png").read_bytes() for name in asked}
    assert pictures["a"] == pictures["b"]
    assert len(set(pictures.values())) == 3


def test_a_bad_image_is_told_of_and_the_others_go_on(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (images / "1" / "1.png").read_bytes()
    (images / "1" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert explain(output, images) == 1
    assert names(output) == {"0.png", "2.png"}
    said = capsys.readouterr().out
    assert f"bad image: {images}/1/1.png: cannot be read as an image" in said
    assert f"2 explained, 1 bad: {output}" in said


def test_images_of_one_name_do_not_overwrite_each_other(images: Path, output: Path) -> None:
    first = (images / "0" / "0.png").read_bytes()
    with Image.open(io.BytesIO(first)) as image:
        image.save(images / "0" / "0.jpg")
        image.save(images / "1" / "0.PNG")
    assert explain(output, f"{images}/[01]/0.*", images / "2") == 0
    assert names(output) == {"0.png", "0-2.png", "0-3.png", "2.png"}


def test_more_than_the_limit_are_left_out_and_it_says_so(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(output, images, "--limit", "2") == 0
    assert names(output) == {"0.png", "1.png"}
    assert "the first 2 images are explained, others are left out; for more: --limit N" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--class", "cat"), "--class cat: the model does not know this class; expected one of 0, 1, 2, 3"),
        (("--method", "magic"), "--method magic: expected auto or gradients"),
        (("--limit", "0"), "--limit 0: expected 1 or more"),
        (("nowhere.png",), "nowhere.png: no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], error: str, images: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(output, images, *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {error}")
    assert not output.exists()


def test_a_folder_that_holds_something_is_left_as_it_is(
    images: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.mkdir()
    (output / "0.png").write_text("mine")
    assert explain(output, images) == 2
    assert "is there already; expected a new folder" in capsys.readouterr().err
    assert (output / "0.png").read_text() == "mine"


def test_names_of_any_letters_can_be_written(images: Path, output: Path, recwarn: pytest.WarningsRecorder) -> None:
    odd = images / ("$x_1$ 猫\n" + "é" * 90 + ".png")
    (images / "0" / "0.png").rename(odd)
    assert explain(output, odd) == 0
    [name] = names(output)
    assert name.startswith("$x_1$ 猫\n")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
