"""Whatever happens to the files, the rows are those that would be computed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.row_store.filling import Job, files, flip, settled
from tl_experiments.runtime.cache_entries import verify


def truncate(where: int) -> Callable[[], None]:
    return lambda: os.truncate(files(".rows")[0], where)


DAMAGES = {
    "payload empty": (truncate(0), "has 0 bytes instead of 80"),
    "payload cut in a row": (truncate(50), "has 50 bytes instead of 80"),
    "payload one byte short": (truncate(79), "has 79 bytes instead of 80"),
    "payload flipped": (lambda: flip(files(".rows")[0], 25), "1 of its 4 rows do not match their checksum"),
    "payload missing": (lambda: files(".rows")[0].unlink(), "its payload is missing"),
    "payload of another shard": (
        lambda: files(".rows")[0].write_bytes(
            next(p for p in files(".rows")[1:] if p.stat().st_size == 80).read_bytes()
        ),
        "4 of its 4 rows do not match their checksum",
    ),
    "manifest flipped": (lambda: flip(files(".json")[0], 100), "its manifest does not match its checksum"),
    "manifest empty": (lambda: os.truncate(files(".json")[0], 0), "its manifest does not match its checksum"),
    "manifest of another shard": (
        lambda: files(".json")[0].write_bytes(files(".json")[1].read_bytes()),
        "its manifest does not match its checksum",
    ),
    "manifest missing": (lambda: files(".json")[0].unlink(), "its manifest is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_once_and_mended(name: str, root: Path) -> None:
    damage, fault = DAMAGES[name]
    Job(range(8)).fill()
    Job(range(10)).fill()  # the last shard is short, so that the first in the folder may be any of three
    for path in [path for path in files(".rows") if path.stat().st_size != 80]:
        path.unlink()
        path.with_suffix(".json").unlink()
    damage()
    (shown,) = verify(root)
    assert fault in shown.fault
    again = Job(range(10)).fill()
    assert set(again.computed) > {8, 9}
    assert len(again.told) == 1
    assert fault in again.told[0]
    assert "\n" not in again.told[0]
    assert Job(range(10)).fill().told == []
    assert settled(root)


def test_sound_rows_of_a_damaged_shard_are_not_computed_again(root: Path) -> None:
    Job(range(4)).fill()
    flip(files(".rows")[0], 25)
    assert Job(range(4)).fill().computed == [1]
    assert settled(root, range(4))


def test_a_manifest_moved_from_another_entry_is_not_believed(root: Path) -> None:
    other = Job(range(4), fields={"other": 1}).fill().store.folder
    job = Job(range(4))
    job.store.folder.mkdir(parents=True)
    for path in other.iterdir():
        path.rename(job.store.folder / path.name)
    job.fill()
    assert job.computed == [0, 1, 2, 3]
    assert "belongs to something else" in job.told[0]
    assert settled(root, range(4))


def test_a_row_that_is_not_wanted_is_not_read(root: Path) -> None:
    Job(range(4)).fill()
    flip(files(".rows")[0], 79)
    assert Job(range(3)).fill().told == []
    assert list(verify(root))


def test_a_lost_or_damaged_key_file_is_written_again(root: Path) -> None:
    folder = Job(range(10)).fill().store.folder
    for spoil in ((folder / "key.json").unlink, lambda: flip(folder / "key.json", 20)):
        spoil()
        assert len(list(verify(root))) == 1
        assert settled(root)


def test_a_temporary_file_of_a_dead_writer_is_removed() -> None:
    folder = Job(range(4)).fill().store.folder
    stale = folder / ".4711-0123456789abcdef"
    stale.write_bytes(b"half a shard")
    assert Job(range(8)).fill().told == []
    assert not stale.exists()
