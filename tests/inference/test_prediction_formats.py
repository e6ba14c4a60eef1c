"""Tables of predictions: what stands in their columns, the same in each format, wherever the parts were cut."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tl_experiments.data.decoding import ImageError
from tl_experiments.inference import prediction_formats
from tl_experiments.inference.image_list import Listed
from tl_experiments.inference.prediction_formats import format_of
from tl_experiments.inference.prediction_table import Columns
from tl_experiments.inference.streaming import Answered
from tl_experiments.runtime.errors import SettingError

CLASSES = ("cat", 'a "dog", old', "-1")
NAMES = ("x/1.jpg", "=1+1,2.jpg", "two\nlines.jpg", "b\udcff.jpg", "写真\r1.jpg", "gone.jpg")
PROBS = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [1e-9, 1 - 1e-7, 0.0], [1, 0, 0], [0.3, 0.3, 0.4]], np.float32)


def table(columns: Columns) -> pa.Table:
    faults = [None] * 5 + [ImageError("gone.jpg", "unreadable", "cannot be read, ever")]
    return columns.table([Answered([Listed(name, name) for name in NAMES], faults, torch.from_numpy(PROBS))])


def joined(whole: pa.Table, folder: Path, suffix: str, *, cuts: tuple[int, ...] = ()) -> bytes:
    """Write a table in parts that end at the cuts."""
    form, file, paths = format_of(Path(f"out{suffix}")), io.BytesIO(), []
    for start, end in zip((0, *cuts), (*cuts, len(whole)), strict=True):
        paths.append(folder / f"{suffix}-{len(list(folder.iterdir()))}")
        with paths[-1].open("xb") as part:
            form.write_part(whole.slice(start, end - start), part)
    form.join(paths, file, schema=whole.schema)
    return file.getvalue()


def read(content: bytes, suffix: str) -> list[dict[str, Any]]:
    """Read a table as a stranger would, what is missing as None."""
    if suffix == ".parquet":
        return pq.read_table(io.BytesIO(content)).to_pylist()
    if suffix == ".jsonl":
        return [json.loads(line) for line in content.decode().splitlines()]
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [{name: (_number(name, cell) if cell else None) for name, cell in row.items()} for row in rows]


def _number(name: str, cell: str) -> Any:
    return float(cell) if name.startswith("prob") else cell


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_each_format_says_the_same(suffix: str, tmp_path: Path) -> None:
    rows = read(joined(table(Columns(CLASSES, top_k=2, all_probs=True)), tmp_path, suffix), suffix)
    probs = [f"prob[{name}]" for name in CLASSES]
    assert list(rows[0]) == ["filename", "label", "prob", "label_2", "prob_2", *probs, "error"]
    assert [row["filename"] for row in rows] == [*NAMES[:3], r"b\udcff.jpg", *NAMES[4:]]
    assert [row["label"] for row in rows] == ['a "dog", old', "cat", 'a "dog", old', "cat", "-1", None]
    assert [row["label_2"] for row in rows][:1] == ["-1"]
    exact = np.array([[row[name] for name in probs] for row in rows[:5]], np.float64).astype(np.float32)
    assert np.array_equal(exact, PROBS), "every bit"
    assert [row["prob"] for row in rows[:5]] == [max(row[name] for name in probs) for row in rows[:5]]
    assert rows[5] == dict.fromkeys(rows[0]) | {"filename": "gone.jpg", "error": "cannot be read, ever"}
    assert {row["error"] for row in rows[:5]} == {None}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("group_rows", [2, 4, 100])
def test_where_parts_are_cut_changes_no_byte(
    suffix: str, group_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_formats, "_GROUP_ROWS", group_rows)
    whole = table(Columns(CLASSES))
    once = joined(whole, tmp_path, suffix)
    for cuts in ((1,), (3,), (1, 2, 3, 4, 5), (4, 5)):
        assert joined(whole, tmp_path, suffix, cuts=cuts) == once
    if suffix == ".parquet":
        groups = pq.ParquetFile(io.BytesIO(once)).metadata
        sizes = [groups.row_group(at).num_rows for at in range(groups.num_row_groups)]
        assert sizes == [group_rows] * (6 // group_rows) + ([6 % group_rows] if 6 % group_rows else [])


def test_the_least_that_is_asked_for_is_four_columns(tmp_path: Path) -> None:
    first, second, *_ = joined(table(Columns(CLASSES)), tmp_path, ".csv").decode().splitlines()
    assert first == "filename,label,prob,error"
    assert second == 'x/1.jpg,"a ""dog"", old",0.7,'


def test_an_answer_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    values = torch.tensor([[0.5, math.nan, 0.5], [0.25, 0.5, 0.25]])
    answered = Answered([Listed("a", "a"), Listed("b", "b")], [None, None], values)
    rows = read(joined(Columns(CLASSES).table([answered]), tmp_path, ".jsonl"), ".jsonl")
    assert (rows[0]["label"], rows[0]["prob"]) == (None, None)
    assert rows[0]["error"].startswith("the model's answer is no number")
    assert (rows[1]["label"], rows[1]["error"]) == (CLASSES[1], None)


@pytest.mark.parametrize("top_k", [0, 4])
def test_more_classes_than_there_are_cannot_be_named(top_k: int) -> None:
    with pytest.raises(SettingError, match=f"^--top-k {top_k}: expected 1 to 3"):
        Columns(CLASSES, top_k=top_k)


@pytest.mark.parametrize("output", ["out", "out.txt", "out.csv.gz"])
def test_another_extension_is_refused(output: str) -> None:
    with pytest.raises(SettingError, match=f"^--output {output}: expected a path that ends in .csv, .parquet, .jsonl$"):
        format_of(Path(output))
