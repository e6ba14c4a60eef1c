"""Full disks, folders that cannot be written, and the limit of the cache."""

import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from tests.runtime.row_store.filling import FIELDS, Job, ended, in_child, settled
from tl_experiments.runtime import row_store
from tl_experiments.runtime.cache_entries import entries, verify
from tl_experiments.runtime.cache_pruning import Pruned, make_room, prune
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.shard import Shard


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_a_full_disk_is_told_once_and_changes_no_result(
    first: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fsync(number: int) -> None:
        calls.append(number)
        (real if len(calls) < first else full)(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        job = Job(range(10)).fill()
        assert job.computed == list(range(10))
        assert len(job.told) == 1
        assert "No space left on device" in job.told[0]
        assert not list(root.glob("*/*/.*"))
    assert len(calls) == first
    Job(range(10)).fill()
    assert settled(root)


def test_files_that_may_not_grow_are_told_once_and_change_no_result(root: Path) -> None:
    resource = pytest.importorskip("resource")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
        job = Job(range(10)).fill()
        assert len(job.told) == 1, job.told
        assert "File too large" in job.told[0]

    assert ended(in_child(work)) == 0
    assert not [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    Job(range(10)).fill()
    assert settled(root)


def test_a_folder_that_cannot_be_written_is_told_once_and_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "file" / "below"))
    for _ in range(2):
        job = Job(range(10)).fill()
        assert job.computed == list(range(10))
        assert len(job.told) == 1
        assert str(tmp_path / "file") in job.told[0]


@pytest.fixture
def of_root(root: Path) -> Path:
    """A cache whose every file is root's, for all to read; its one entry has rows 0 to 3."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root, who may become somebody else")
    Job(range(4)).fill()
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), root.parents):
        parent.chmod(0o755)
    return root


@pytest.mark.usefixtures("of_root")
def test_a_folder_that_only_root_may_write_is_read() -> None:
    def work() -> None:
        os.setuid(65534)
        job = Job(range(6)).fill()
        assert job.computed == [4, 5]
        assert len(job.told) == 1, job.told
        assert "Permission denied" in job.told[0]

    assert ended(in_child(work)) == 0


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "listed"])
@pytest.mark.parametrize("closed", ["*", "*/*", "."], ids=["kind", "entry", "cache"])
def test_a_folder_of_somebody_else_is_told_once_changes_no_result_and_is_not_called_sound(
    closed: str, mode: int, of_root: Path
) -> None:
    paths = [path for path in of_root.glob(closed) if path.is_dir()] if closed != "." else [of_root]
    for path in paths:
        path.chmod(mode)

    def work() -> None:
        os.setuid(65534)
        job = Job(range(6)).fill()
        assert job.computed == list(range(6))
        (line,) = [line for line in job.told if "cannot be written" in line]
        assert "Permission denied" in line
        assert len(job.told) == (2 if (closed, mode) == ("*/*", 0o444) else 1), job.told
        assert prune(of_root, limit=-1).removed == ()
        damages = list(verify(of_root))
        assert damages
        assert all("Permission denied" in damage.fault for damage in damages), damages

    assert ended(in_child(work)) == 0
    for path in paths:
        path.chmod(0o755)
    assert settled(of_root, range(4)), "nothing of it has gone"


def test_an_entry_that_is_closed_while_it_is_removed_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Job(range(4)).fill()

    def refuse(path: Path, *_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def close(path: Path, target: Path) -> NoReturn:
        patch.setattr(Path, "stat", refuse)
        patch.setattr(Path, "lstat", refuse)
        refuse(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", close)
        pruned = make_room(root, limit=-1)
    assert ([entry.rows for entry in pruned.kept], pruned.removed) == ([4], ())


def test_other_entries_make_room_and_this_one_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3):
        folder = Job(range(4), fields={"size": size}).fill().store.folder
        os.utime(folder / "key.json", (size, size))
    taken = sum(entry.bytes for entry in entries(root))
    Job(range(4), fields={"size": 1}).fill()  # read alone, it is the latest again
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str((taken + 5) / 1e9))
    assert Job(range(4), fields={"size": 4}).fill().told == []
    assert [entry.fields["size"] for entry in entries(root)] == [3, 1, 4]
    assert Job(range(4), fields={"size": 2}).fill().computed == [0, 1, 2, 3]


def test_this_entry_stays_although_clocks_differ_and_locks_do_not_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Job(range(4), fields={"other": 1}).fill().store.folder
    os.utime(other / "key.json", (4e9, 4e9))
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str((sum(path.stat().st_size for path in other.iterdir()) + 200) / 1e9))
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    Job(range(4)).fill()
    assert [entry.fields for entry in entries(root)] == [FIELDS]


def test_room_is_made_before_rows_are_written_and_not_again_for_every_shard(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Job(range(40), fields={"other": 1}).fill()
    (other,) = entries(root)
    limit = other.bytes + 1000
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str(limit / 1e9))
    replace, taken, rooms = os.replace, [], []

    def weighing(source: str, target: Path) -> None:
        replace(source, target)
        taken.append(sum(entry.bytes for entry in entries(root)))

    def counting(*arguments: Any, **options: Any) -> Pruned:
        rooms.append(len(taken))
        return make_room(*arguments, **options)

    monkeypatch.setattr(os, "replace", weighing)
    monkeypatch.setattr(row_store, "make_room", counting)
    Job(range(40)).fill()
    assert len(taken) == 1 + 2 * 10, "key.json and ten shards"
    assert max(taken) <= limit
    assert rooms == [0, len(taken)]


def test_other_writers_are_counted_at_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Job(range(4), fields={"size": 1}).fill()
    (one,) = entries(root)
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str(2.5 * one.bytes / 1e9))

    class Slow(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            other = Job(range(4), fields={"size": 2})
            monkeypatch.setattr(row_store, "make_room", lambda *_, **__: None)  # it has made room before this one wrote
            other.fill()
            monkeypatch.setattr(row_store, "make_room", make_room)
            os.utime(other.store.folder / "key.json", (1, 1))
            return super().compute(positions)

    Slow(range(4), fields={"size": 3}).fill()
    assert [entry.fields["size"] for entry in entries(root)] == [1, 3]


def test_what_a_killed_process_was_removing_goes_when_room_is_made(root: Path) -> None:
    folder = Job(range(4), fields={"size": 1}).fill().store.folder
    folder.rename(trash := folder.with_name(".trash-0123456789abcdef"))
    Job(range(4), fields={"size": 2}).fill()
    assert not trash.exists()
    assert [entry.fields["size"] for entry in entries(root)] == [2]


@pytest.mark.parametrize("begun", [False, True], ids=["one removes an entry", "one goes on with trash"])
def test_two_may_empty_the_same_trash(begun: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does so between any two steps of the first."""
    unlink, rmdir = os.unlink, os.rmdir
    folder = Job(range(10)).fill().store.folder
    num_steps = len(list(folder.iterdir())) + 1
    for when in range(num_steps):
        Job(range(10)).fill()
        steps: list[int] = []

        def racing(real: Callable[..., None], *, when: int = when, steps: list[int] = steps) -> Callable[..., None]:
            def step(path: str, **options: Any) -> None:
                steps.append(1)
                if len(steps) == when + 1:
                    assert make_room(root, limit=1e9).removed == ()
                    assert not list(root.glob("*/.trash-*"))
                real(path, **options)

            return step

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", racing(unlink))
            patch.setattr(os, "rmdir", racing(rmdir))
            if begun:
                folder.rename(folder.with_name(".trash-0123456789abcdef"))
            assert len(make_room(root, limit=-1).removed) == (0 if begun else 1)
        assert len(steps) > when
        assert entries(root) == []


def test_an_entry_larger_than_the_limit_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Job(range(1), fields={"other": 1}).fill()
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "0.000001")
    job = Job(range(100)).fill().fill()
    assert job.computed == [*range(100)] * 2
    assert len(job.told) == 1
    assert "TL_CACHE_LIMIT_GB" in job.told[0]
    assert [entry.fields for entry in entries(root)] == [{"other": 1}]


def test_a_wrong_limit_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "much")
    with pytest.raises(SettingError, match="TL_CACHE_LIMIT_GB=much"):
        Job([0])


def test_an_entry_that_goes_while_it_is_read_and_written_breaks_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader finds it gone after any of its manifests, and the writer before any of its renames."""
    real = Shard.load
    for when in range(3):
        Job(range(10)).fill()
        seen: list[Path] = []

        def load(manifest: Path, when: int = when, seen: list[Path] = seen) -> Shard:
            if len(seen) == when:
                assert make_room(root, limit=0).removed
            seen.append(manifest)
            return real(manifest)

        monkeypatch.setattr(Shard, "load", load)
        assert Job(range(10)).fill().told == []
        monkeypatch.setattr(Shard, "load", real)
        assert settled(root)

    replace, calls = os.replace, []

    def late(source: str, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            monkeypatch.setattr("fcntl.flock", lambda *_: None)  # the pruner does not see that the entry is in use
            assert make_room(root, limit=-1).removed
        replace(source, target)

    make_room(root, limit=-1)
    monkeypatch.setattr(os, "replace", late)
    assert Job(range(10)).fill().told == []
