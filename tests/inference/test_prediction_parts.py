"""Parts that an earlier command has finished are kept as far as they are of the same job and the same images."""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from tl_experiments.inference import prediction_parts
from tl_experiments.inference.image_list import Listed
from tl_experiments.inference.prediction_formats import format_of
from tl_experiments.inference.prediction_parts import claimed, parts_folder
from tl_experiments.inference.prediction_table import Columns
from tl_experiments.runtime.errors import RunFailed, SettingError

JOB = {"model": "m"}
SCHEMA = Columns(("cat",)).schema
ITEMS = [Listed(str(at), str(at)) for at in range(10)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "new" / "out.csv"


def rows(items: Sequence[Listed]) -> pa.Table:
    names = [item.name for item in items]
    return pa.table([names, ["cat"] * len(names), [1.0] * len(names), [None] * len(names)], schema=SCHEMA)


def work(output: Path, items: Sequence[Listed], *, upto: int, job: dict[str, str] = JOB) -> tuple[int, int]:
    """Add parts of three rows until so many rows are there; returns how many there were, and how many were left."""
    with claimed(output, form=format_of(output)) as parts:
        left = list(parts.take_up(iter(items), job=job))
        kept = parts.num_rows
        for start in range(0, len(left), 3):
            if parts.num_rows >= upto:
                break
            parts.add(rows(left[start : start + 3]))
        if parts.num_rows == len(items):
            parts.join(SCHEMA)
    return kept, len(left)


def test_what_was_finished_is_not_done_again_and_the_output_is_the_same(output: Path, tmp_path: Path) -> None:
    work(tmp_path / "once.csv", ITEMS, upto=10)
    assert work(output, ITEMS, upto=6) == (0, 10)
    assert not output.exists()
    assert work(output, ITEMS, upto=10) == (6, 4)
    assert output.read_bytes() == (tmp_path / "once.csv").read_bytes()
    assert list(output.parent.iterdir()) == [output], "the parts are gone"


def test_parts_of_other_images_are_done_again(output: Path, tmp_path: Path) -> None:
    work(output, ITEMS, upto=9)
    changed = [*ITEMS[:4], Listed("new", "new"), *ITEMS[4:]]
    assert work(output, changed, upto=11) == (3, 8)
    work(tmp_path / "once.csv", changed, upto=11)
    assert output.read_bytes() == (tmp_path / "once.csv").read_bytes()


def test_parts_of_another_job_are_done_again(output: Path) -> None:
    work(output, ITEMS, upto=9)
    assert work(output, ITEMS, upto=3, job={"model": "other"}) == (0, 10)
    assert work(output, ITEMS, upto=10, job={"model": "other"}) == (3, 7)


def test_images_that_are_done_again_are_counted_with_the_reason(output: Path) -> None:
    work(output, ITEMS, upto=9)
    with claimed(output, form=format_of(output)) as parts:
        parts.take_up(iter(ITEMS[4:]), job=JOB)
        assert (parts.dropped, parts.reason) == (9, "the images are others")
    work(output, ITEMS, upto=9)
    with claimed(output, form=format_of(output)) as parts:
        parts.take_up(iter(ITEMS), job={"model": "other"})
        assert parts.dropped == 9
        assert parts.reason.startswith("the model, the options")


def test_a_part_of_images_that_could_not_be_read_is_done_again(output: Path) -> None:
    work(output, ITEMS, upto=3)
    part = next(parts_folder(output).glob("000000-*"))
    part.rename(part.with_name(part.name.replace("-3-0-", "-3-2-")))
    assert work(output, ITEMS, upto=3) == (0, 10)


def test_what_lies_behind_a_gap_and_what_a_dead_writer_left_is_removed(output: Path) -> None:
    work(output, ITEMS, upto=9)
    folder = parts_folder(output)
    next(folder.glob("000001-*")).unlink()
    (folder / ".unfinished-1-x").write_bytes(b"half")
    assert work(output, ITEMS, upto=3) == (3, 7)
    assert sorted(path.name[:6] for path in folder.iterdir()) == [".lock", "000000", "job"]


def test_a_second_process_is_told_to_wait(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_parts, "_LOCK_SECONDS", 0)
    with (
        claimed(output, form=format_of(output)),
        pytest.raises(SettingError, match="another process is writing it"),
        claimed(output, form=format_of(output)),
    ):
        pytest.fail("it is claimed")
    with claimed(output, form=format_of(output)):
        pass


def test_who_waits_for_another_process_that_finishes_then_has_the_output(output: Path) -> None:
    took = []

    def wait() -> None:
        with claimed(output, form=format_of(output)) as parts:
            took.append(list(parts.take_up(iter(ITEMS), job=JOB)))

    second = Thread(target=wait)
    with claimed(output, form=format_of(output)) as parts:
        second.start()
        time.sleep(0.2)  # it has opened the lock by then
        parts.take_up(iter(ITEMS), job=JOB)
        parts.add(rows(ITEMS))
        parts.join(SCHEMA)
        time.sleep(0.2)  # and looks for it, now that it is gone
    second.join()
    assert took == [ITEMS]


def test_a_folder_that_may_not_be_locked_is_told(output: Path) -> None:
    (parts_folder(output) / ".lock").mkdir(parents=True)
    with pytest.raises(RunFailed, match="cannot be written"), claimed(output, form=format_of(output)):
        pytest.fail("it is claimed")


def test_nothing_is_left_where_nothing_was_finished(output: Path) -> None:
    with claimed(output, form=format_of(output)) as parts:
        parts.take_up(iter(ITEMS), job=JOB)
    assert list(output.parent.iterdir()) == []


def test_a_command_that_fails_while_it_looks_loses_no_part(output: Path) -> None:
    work(output, ITEMS, upto=9)
    with pytest.raises(ZeroDivisionError), claimed(output, form=format_of(output)):
        raise ZeroDivisionError
    assert work(output, ITEMS, upto=10) == (9, 1)


def test_a_full_disk_is_told_and_costs_nothing_that_is_finished(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work(output, ITEMS, upto=6)

    def full(_file: object, _path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(prediction_parts, "publish", full)
        with pytest.raises(RunFailed, match=r"ENOSPC.*the same command goes on from there"):
            work(output, ITEMS, upto=9)
    assert work(output, ITEMS, upto=10) == (6, 4)
