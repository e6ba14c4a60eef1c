"""Whatever happens to the files, the rows are those that would be computed."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.runtime.row_store.filling import Job, files, flip, settled
from tl_experiments.runtime.cache_entries import verify


def truncate(where: int) -> Callable[[], None]:
    return lambda: os.truncate(files(".rows")[0], where)


def orphan(manifest: Path) -> None:
    """Remove it, long after the payload was written."""
    manifest.unlink()
    os.utime(manifest.with_suffix(".rows"), (1e9, 1e9))


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
    "manifest missing": (lambda: orphan(files(".json")[0]), "its manifest is missing"),
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


def test_what_is_being_written_is_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check comes upon every moment at which a writer gives a file its name."""
    replace, found = os.replace, []

    def looking(source: str, target: Path) -> None:
        replace(source, target)
        found.extend(verify(root))

    monkeypatch.setattr(os, "replace", looking)
    Job(range(10)).fill()
    assert found == []


def unopened(path: Path, *_: object, **__: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


class Failing(io.FileIO):
    def read(self, *_: object) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("method", "suffix", "failing"),
    [
        ("read_bytes", ".json", unopened),
        ("open", ".rows", unopened),
        ("open", ".rows", lambda path, *_, **__: Failing(path)),
        ("stat", ".rows", unopened),
    ],
    ids=["manifest", "payload", "row", "size"],
)
def test_a_shard_that_cannot_be_read_is_no_damaged_one(
    method: str, suffix: str, failing: Callable[..., Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once however many there are, its rows are computed, and it stays."""
    Job(range(10)).fill()
    if method == "stat":  # which is asked for where rows are not as they were written
        for payload in files(".rows"):
            flip(payload, 0)
    before = {path: path.read_bytes() for path in (*files(".rows"), *files(".json"))}
    real = getattr(Path, method)
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            method,
            lambda path, *a, **k: (failing if path in before and path.suffix == suffix else real)(path, *a, **k),
        )
        job = Job(range(10)).fill()
        (*shown,) = verify(root)
    assert job.computed
    (line,) = job.told
    assert line.startswith(f"cache: 3 shards of features {job.store.key[:12]} cannot be read (Too many open files)")
    assert {path: path.read_bytes() for path in before} == before
    assert {damage.path for damage in shown} == {path for path in before if path.suffix == ".json"}
    assert {damage.fault for damage in shown} == {"it cannot be read (Too many open files)"}
    if method != "stat":
        assert (Job(range(10)).fill().computed, list(verify(root))) == ([], [])
