"""What is there is read, and only what is new is computed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.runtime.row_store.filling import FEATURE_DIM, FIELDS, Job, digest, files
from tl_experiments.runtime.cache_entries import entries
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.row_table import ComputeRows
from tl_experiments.runtime.shard import Shard


def test_what_was_computed_is_read_in_any_order_and_only_what_is_new_is_computed() -> None:
    assert Job(range(10)).fill().computed == list(range(10))
    assert Job([7, 2, 3, 9, 0]).fill().computed == []
    assert Job([20, *range(10), 11]).fill().computed == [20, 11]
    assert Job([11, 5, 20, 30]).fill().computed == [30]


def test_a_row_is_stored_once_and_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = Shard.read

    def reading(shard: Shard, wanted: list[int]) -> Iterator[tuple[int, bytes | None]]:
        read.extend(wanted)
        return real(shard, wanted)

    Job(range(6)).fill()
    monkeypatch.setattr(Shard, "read", reading)
    assert Job(list(range(9, -1, -1))).fill().computed == [9, 8, 7, 6]
    assert len(read) == 6
    assert [entry.rows for entry in entries(root)] == [10]


def test_images_that_occur_twice_are_computed_once() -> None:
    assert Job([1, 1, 2, 1, 3, 2]).fill().computed == [1, 2, 3]
    assert Job([3, 4, 3, 4, 1]).fill().computed == [4]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_lengths_of_chunks_change_nothing(chunk: int) -> None:
    Job(range(10), chunk=chunk).fill()
    assert len(files(".rows")) == len(files(".json")) == 3
    assert Job(range(10)).fill().computed == []


def test_no_images_are_no_work() -> None:
    store = Job([]).store
    store.fill(torch.empty(0, FEATURE_DIM), [], Job([]).compute)
    assert not store.folder.exists()


def test_canvases_of_bytes_are_stored_as_they_are() -> None:
    canvases = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8)
    digests = [digest(number) for number in range(6)]

    def fill(compute: ComputeRows) -> torch.Tensor:
        rows = torch.zeros_like(canvases)
        store = RowStore(kind="images", fields={}, row_shape=(3, 4, 4), dtype=torch.uint8, notice=pytest.fail)
        store.fill(rows, digests, compute)
        return rows

    assert torch.equal(fill(lambda positions: iter([canvases[positions]])), canvases)
    assert torch.equal(fill(lambda _: pytest.fail("it is all there")), canvases)


def test_other_fields_are_another_entry() -> None:
    Job(range(3)).fill()
    other = Job(range(3), fields=FIELDS | {"image_size": 64}).fill()
    assert other.computed == [0, 1, 2]
    assert json.loads((other.store.folder / "key.json").read_text())["fields"]["image_size"] == 64
    assert Job(range(3), fields=dict(reversed(FIELDS.items()))).fill().computed == []


def test_another_shape_or_type_is_another_entry() -> None:
    def key(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Path:
        return RowStore(kind=kind, fields=FIELDS, row_shape=shape, dtype=dtype, notice=pytest.fail).folder

    f32, i32 = torch.float32, torch.int32
    named = [("features", (6,), f32), ("features", (2, 3), f32), ("features", (6,), i32), ("images", (6,), f32)]
    assert len({key(*names) for names in named}) == len(named)
    with pytest.raises(ValueError, match=r"kind=models: expected one of features, images, checks"):
        key("models", (6,), f32)


def test_rows_of_another_shape_or_type_are_refused() -> None:
    job = Job(range(3))
    for rows in (torch.zeros(3, 4), torch.zeros(2, FEATURE_DIM), torch.zeros(3, FEATURE_DIM, dtype=torch.float64)):
        with pytest.raises(ValueError, match="rows are"):
            job.store.fill(rows, [digest(number) for number in range(3)], job.compute)
    with pytest.raises(ValueError, match="contiguous"):
        job.store.fill(torch.zeros(FEATURE_DIM, 3).T, [digest(number) for number in range(3)], job.compute)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([torch.zeros(2, FEATURE_DIM)], "2 of 3 rows"),
        ([torch.zeros(4, FEATURE_DIM)], "3 rows were missing"),
        ([torch.zeros(3, 1)], "3 rows were missing"),
        ([torch.zeros(3, FEATURE_DIM, dtype=torch.float64)], "float64"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(chunks: list[torch.Tensor], problem: str) -> None:
    job = Job(range(3))
    with pytest.raises(ValueError, match=problem):
        job.store.fill(job.rows, [digest(number) for number in range(3)], lambda _: iter(chunks))
