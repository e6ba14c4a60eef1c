"""Many processes at once, and processes that are killed: each row is right, and computed once where locks work."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch

from tests.runtime.row_store.filling import Job, ended, files, in_child, settled
from tl_experiments.runtime import cache_lock, shard_writer
from tl_experiments.runtime.cache_pruning import make_room


def test_where_locks_are_not_implemented_the_store_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert Job(range(4)).fill().told == []
    assert Job(range(4)).fill().computed == []


@pytest.mark.parametrize("rows_before", range(0, 11, 2))
def test_a_writer_that_is_killed_loses_little_and_blocks_nobody(rows_before: int, root: Path) -> None:
    class Dying(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            for chunk in super().compute(positions):
                if len(self.computed) > rows_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield chunk

    child = in_child(lambda: Dying(range(10), chunk=1).fill() and None)
    assert ended(child) == (-signal.SIGKILL if rows_before < 10 else 0)
    after = Job(range(10)).fill()
    assert after.computed == list(range(rows_before // 4 * 4 if rows_before < 10 else 10, 10))
    assert after.told == []
    assert settled(root)


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "second fsync", "second replace"])
def test_a_writer_that_is_killed_in_the_middle_of_a_shard_leaves_a_store_that_works(call: str, root: Path) -> None:
    folder = Job(range(2)).fill().store.folder  # key.json is written and stays out of the count

    def dying(real: Callable[..., object], *, at: int) -> Callable[..., object]:
        calls: list[int] = []

        def call(*arguments: object) -> object:
            calls.append(1)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return call

    def die_writing() -> None:
        if call == "write":
            write_shard = shard_writer.write_shard

            def die_at_its_second_row(*arguments: Any, **options: Any) -> None:
                hashlib.sha256 = dying(hashlib.sha256, at=2)
                write_shard(*arguments, **options)

            shard_writer.write_shard = die_at_its_second_row
        else:
            name = call.split()[-1]
            second = 3 if name == "fsync" else 2  # between the files' own stands that of the payload's folder
            setattr(os, name, dying(getattr(os, name), at=second if call.startswith("second") else 1))
        Job(range(10)).fill()

    assert ended(in_child(die_writing)) == -signal.SIGKILL
    assert len(list(folder.glob(".*"))) == 1, "it died while it was writing"
    assert len(files(".rows")) == (2 if call.startswith("second") else 1)
    assert set(range(2, 10)) <= {*Job(range(10)).fill().computed}
    assert settled(root)


def test_an_error_while_computing_keeps_what_was_computed(root: Path) -> None:
    class Failing(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            for chunk in super().compute(positions):
                if len(self.computed) > 6:
                    raise KeyboardInterrupt
                yield chunk

    with pytest.raises(KeyboardInterrupt):
        Failing(range(10)).fill()
    assert Job(range(10)).fill().computed == [6, 7, 8, 9]
    assert settled(root)


def test_who_waits_for_another_process_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_lock, "PATIENCE_SECONDS", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    begun = tmp_path / "begun"

    class Hanging(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            begun.touch()
            time.sleep(60)
            yield from super().compute(positions)

    holder = in_child(lambda: Hanging(range(4)).fill() and None)
    try:
        while not begun.exists():
            time.sleep(0.01)
        waiting = Job(range(4))
        alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            waiting.fill()
        assert waiting.told == ["cache: waiting for another process that computes the same features"]
        assert waiting.computed == []
        room = make_room(Path(os.environ["TL_CACHE_DIR"]), limit=0)  # there is nothing of it yet
        assert room.removed == room.kept == ()
    finally:
        signal.signal(signal.SIGINT, before)
        os.kill(holder, signal.SIGKILL)
        ended(holder)
    assert Job(range(4)).fill().computed == [0, 1, 2, 3]  # the dead holder's lock is free
