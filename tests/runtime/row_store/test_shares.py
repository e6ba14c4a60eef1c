"""Rows that several workers share: none waits for another that does other work, readers wait for nobody."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.runtime.row_store.filling import Job, ended, files, in_child, settled
from tl_experiments.runtime import cache_pruning, row_store
from tl_experiments.runtime.cache_lock import locked
from tl_experiments.runtime.cache_pruning import prune
from tl_experiments.runtime.share import BLOCK, Share


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize("length", [0, 1, 5, 64, BLOCK, 3 * BLOCK + 1, 10_000])
def test_shares_are_the_whole_without_repeats_and_of_one_size(count: int, length: int) -> None:
    shares = [Share(index, count).positions(length) for index in range(count)]
    assert sorted(position for share in shares for position in share) == list(range(length))
    assert all(share == sorted(share) for share in shares)
    sizes = [len(share) for share in shares]
    rounds = max(1, -(-length // (count * BLOCK)))
    assert max(sizes) <= -(-length // count) + rounds, "the longest is what all wait for"


def test_what_lies_together_goes_to_many() -> None:
    """Of 50,000 images the first half is known: no worker of 16 has more to do than the others by half."""
    left = [sum(position >= 25_000 for position in Share(index, 16).positions(50_000)) for index in range(16)]
    assert max(left) < 1.5 * min(left)


@pytest.mark.parametrize("number", [-1, 2])
def test_what_is_no_share_is_none(number: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Share(number, 2)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[Share], int]]:
    """Starts a process that fills a share of 10 rows and never ends."""
    children = []

    def start(share: Share) -> int:
        begun = tmp_path / f"begun-{share.index}"

        class Hanging(Job):
            def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
                begun.touch()
                time.sleep(600)
                yield from super().compute(positions)

        children.append(in_child(lambda: Hanging(share.positions(10), share=share).fill() and None))
        while not begun.exists():
            time.sleep(0.01)
        return children[-1]

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
        ended(child)


def test_no_share_waits_for_another_and_all_are_the_whole(begin: Callable[[Share], int]) -> None:
    begin(Share(0, 3))
    others = [Job(Share(index, 3).positions(10), share=Share(index, 3)).fill() for index in (1, 2)]
    assert [job.computed for job in others] == [[4, 5, 6, 7], [8, 9]]
    everything = Job(range(10)).fill()  # nor does who wants all
    assert (everything.computed, everything.told) == ([0, 1, 2, 3], [])
    assert not Job(range(10)).fill().computed


def test_an_entry_stays_while_a_share_is_filled_and_so_does_what_is_being_written(
    begin: Callable[[Share], int], root: Path
) -> None:
    Job(range(4, 10)).fill()
    folder = Job([0]).store.folder
    half = folder / ".unfinished-by-somebody"
    half.touch()
    child = begin(Share(0, 3))
    pruned = prune(root, limit=0)
    assert (pruned.removed, [entry.path for entry in pruned.kept]) == ((), [folder])
    assert half.exists()
    Job(range(10)).fill()
    assert half.exists()
    os.kill(child, signal.SIGKILL)
    while folder.with_name(f"{folder.name}.1-of-3.lock").exists():
        prune(root, limit=1e9)
    assert not half.exists()
    assert settled(root)


def test_what_a_share_writes_that_begins_meanwhile_stays(
    begin: Callable[[Share], int], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Job([9]).fill()
    folder, looks = Job([0]).store.folder, []
    half = folder / f"{'0' * 64}.rows"

    def begun(of: Callable[[Path], list[Path]], *, at: int) -> Callable[[Path], list[Path]]:
        def look(entry: Path) -> list[Path]:
            looks.append(1)
            if len(looks) == at:
                begin(Share(0, 3))
                half.touch()
            return of(entry)

        return look

    with monkeypatch.context() as patch:
        patch.setattr(row_store, "manifests", begun(row_store.manifests, at=2))  # once it has the lock
        Job(range(4, 10)).fill()
    assert half.exists()
    half.unlink()
    looks.clear()
    with monkeypatch.context() as patch:
        patch.setattr(cache_pruning, "leftovers", begun(cache_pruning.leftovers, at=1))
        prune(root, limit=1e9)
    assert half.exists()


def test_locks_of_shares_leave_nothing(root: Path) -> None:
    for index in range(3):
        Job(Share(index, 3).positions(10), share=Share(index, 3)).fill()
    assert not list(root.rglob("*-of-*"))
    assert settled(root)


def test_the_same_share_twice_is_the_same_files() -> None:
    share = Share(1, 2)
    Job(share.positions(10), share=share).fill()
    names = files(".rows")
    for path in files(""):
        path.unlink()
    Job(share.positions(10), share=share).fill()
    assert files(".rows") == names, "two that compute the same at once write the same"


def test_readers_ask_for_no_lock_and_nobody_who_holds_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Job(range(10)).fill().store.folder
    asked = []

    def flock(*_: object) -> None:
        asked.append(1)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with locked(folder) as ours:
        assert ours
        monkeypatch.setattr("fcntl.flock", flock)
        job = Job(range(10)).fill()
        assert (job.computed, job.told, asked) == ([], [], [])


def test_where_there_are_no_locks_shares_are_filled_and_entries_removed_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    for index in range(2):
        assert Job(Share(index, 2).positions(10), share=Share(index, 2)).fill().told == []
    assert Job(range(10)).fill().computed == []
    assert len(prune(root, limit=-1).removed) == 1
