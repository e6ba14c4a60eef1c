"""`tlx predict`: a row for each image in any format, and an exit code that tells whether all is well."""

import csv
import io
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.digit_files import MODEL, RUN, write_digits
from tl_experiments.cli.verbs import main

NUM = 60
Predict = Callable[..., tuple[int, list[dict[str, str]]]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("digits")
    return root, write_digits(root / "in", NUM)


@pytest.fixture(autouse=True)
def here(digits: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are typed in an empty folder where `in` is a link to the images."""
    (tmp_path / "in").symlink_to(digits[0] / "in")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def predicted() -> Predict:
    """Type `tlx predict MODEL ...`; returns the exit code and the rows of out.csv."""

    def type_it(*arguments: str, output: str = "out.csv") -> tuple[int, list[dict[str, str]]]:
        code = main(["predict", str(MODEL), *arguments, "--output", output, "--workers", "0"])
        return code, rows(Path(output))

    return type_it


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def labels(found: Sequence[dict[str, str]]) -> dict[str, str]:
    return {row["filename"]: row["label"] for row in found}


def test_a_folder_becomes_a_table_with_what_the_model_says(
    predicted: Predict, digits: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = predicted("in")
    assert code == 0
    assert [row["filename"] for row in found] == sorted(f"in/{name}" for name in digits[1])
    right = sum(row["label"] == Path(row["filename"]).parent.name for row in found)
    assert right >= NUM - 1
    assert all(0.1 < float(row["prob"]) <= 1 and not row["error"] for row in found)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"{NUM} images, ")
    assert last.endswith(" images/s: out.csv")


def test_the_run_of_the_model_is_as_good_a_name(predicted: Predict) -> None:
    assert main(["predict", str(RUN), "in", "--output", "run.csv", "--workers", "1"]) == 0
    assert predicted("in")[1] == rows(Path("run.csv"))


def test_neither_order_nor_batch_size_changes_a_label(predicted: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = labels(predicted("in")[1])
    for seed, batch_size in enumerate(("1", "7", "64")):
        names = list(expected)
        random.Random(seed).shuffle(names)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
        code, found = predicted("-", "--batch-size", batch_size, "--overwrite")
        assert code == 0
        assert [row["filename"] for row in found] == names
        assert labels(found) == expected


def test_all_formats_say_the_same(predicted: Predict) -> None:
    options = ("in/0", "--top-k", "3", "--all-probs")
    _, table = predicted(*options)
    for output in ("out.parquet", "out.jsonl"):
        assert main(["predict", str(MODEL), *options, "--output", output, "--workers", "0"]) == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    columns = pq.read_table("out.parquet").to_pylist()
    assert len(table) == len(lines) == len(columns) > 1
    for row, line, column in zip(table, lines, columns, strict=True):
        assert list(row) == list(line) == list(column)
        assert len(row) == 1 + 2 * 3 + 10 + 1
        assert exact(row) == exact(line) == exact(column)


def exact(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with every probability as the float32 that it is, and what is missing as an empty text."""
    return {
        name: np.float32(value) if name.startswith("prob") else "" if value is None else value
        for name, value in row.items()
    }


def test_a_bad_file_is_a_row_and_exit_code_1_unless_bad_ones_are_skipped(
    predicted: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe.png")
    Path("bad.jpg").write_bytes(b"\xff\xd8 no image")
    names = ["in/0/0.png", "bad.jpg", "gone.png", "pipe.png", "x" * 5000, "in/1/1.png"]
    Path("list.csv").write_text("image_path\n" + "".join(f"{name}\n" for name in names))
    code, found = predicted("list.csv")
    assert code == 1
    assert [row["filename"] for row in found] == names
    assert [row["label"] for row in found] == ["0", "", "", "", "", "1"]
    for row, told in zip(found[1:5], ("cannot be read as an image", "cannot be read", "a pipe", "cannot"), strict=True):
        assert told in row["error"]
        assert (row["prob"], "\n" in row["error"]) == ("", False)
    assert "6 images, 4 of them bad" in capsys.readouterr().out
    assert predicted("list.csv", "--skip-bad", "--overwrite") == (0, found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone", "--output", "out.csv"), "gone: no such file or folder"),
        (("empty", "--output", "out.csv"), "empty: no images in this folder"),
        (("in/*.gif", "--output", "out.csv"), "in/*.gif: no file matches"),
        (("in", "--output", "out.txt"), "--output out.txt: expected a path that ends in"),
        (("in", "--output", "in"), "--output in: expected a path that ends in"),
        (("in", "--output", "folder.csv"), "is a folder; expected the path of a file"),
        (("in", "--output", "there.csv"), "there.csv: is there already; expected a new path, or --overwrite"),
        (("there.csv", "--output", "there.csv", "--overwrite"), "is what is to be read"),
        (("~/there.csv", "--output", "~/there.csv", "--overwrite"), "is what is to be read"),
        (("in", "--output", "~nobody_of_this_name/out.csv"), "cannot be used as a path"),
        (("in", "--output", "out.csv", "--top-k", "11"), "--top-k 11: expected 1 to 10"),
        (("in", "--output", "out.csv", "--batch-size", "0"), "--batch-size 0: expected 1 or more"),
        (("in", "--output", "out.csv", "--workers", "-1"), "--workers -1: expected 0 or more"),
        (("in", "--output", "out.csv", "--precision", "fp8"), "--precision fp8: expected fp32, bf16 or auto"),
        (("in", "--output", "out.csv", "--device", "gpu"), "device gpu: expected auto, cpu"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    Path("folder.csv").mkdir()
    Path("there.csv").write_text("image_path\nin/0/0.png\n")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    before = sorted(Path().iterdir())
    assert main(["predict", str(MODEL), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert sorted(Path().iterdir()) == before
    assert Path("there.csv").read_text().startswith("image_path")


def test_a_model_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "gone", "in", "--output", "out.csv"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: gone: there is no trained model (no such folder)")
