"""Who may run in a folder: one process at a time, whatever became of those before it."""

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.folder_lock import NoLocks
from tl_experiments.runtime.run_lock import LOCK, alone_in, still_runs
from tl_experiments.sweep.folder import claimed
from tl_experiments.tracking import journal

Claim = Callable[[Path], AbstractContextManager[None]]
CLAIMS = [partial(alone_in, seconds=0), claimed, partial(journal.alone, seconds=0)]
each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=["run", "sweep", "journal"])


@each_claim
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_files_cannot_be_locked_nothing_begins_and_nothing_is_blocked(
    claim: Claim, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", flock)
        with pytest.raises(NoLocks) as refused, claim(tmp_path):
            pytest.fail("another machine could run the same")
        assert not still_runs(tmp_path, seconds=0)
    assert str(refused.value).startswith(f"{tmp_path}: its file system does not lock files ({os.strerror(code)})")
    assert "NFSv4" in str(refused.value)
    with claim(tmp_path):  # as from a machine that mounts the disk with locks
        pass


@each_claim
def test_what_a_killed_process_held_is_free_again(claim: Claim, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    child = os.fork()
    if child == 0:
        with claim(tmp_path):
            begun.touch()
            time.sleep(600)
        os._exit(1)
    while not begun.exists():
        time.sleep(0.01)
    try:
        with pytest.raises((UserError, ConfigError), match="another process is"), claim(tmp_path):
            pass
        assert still_runs(tmp_path, seconds=0) == (tmp_path / LOCK).exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with claim(tmp_path):
        pass
