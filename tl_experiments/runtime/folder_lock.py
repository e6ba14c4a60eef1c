"""A lock in a folder that several machines may share: a process that dies gives it up, wherever it ran."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from tl_experiments.runtime.errors import SettingError

_NOT_THERE = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})


class NoLocks(SettingError):  # noqa: N818 - it names what happened
    """A folder lies on a file system that cannot lock files."""


@contextmanager
def held(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold the lock of a file, which is made.

    Args:
        path: of the file, in a folder that is there.
        seconds: that another process is waited for.

    Raises:
        NoLocks: the file system has none.
        filelock.Timeout: another process has it.
    """
    # A soft lock, filelock's own answer to such a disk, would outlive a killed process and refuse its successor.
    lock = FileLock(path, timeout=seconds, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        raise NoLocks(
            f"{path.parent}: its file system does not lock files ({error.strerror}), so that two processes could run "
            "the same; expected a folder on one that does: a local disk, NFSv4, NFSv3 with lockd, Lustre with -o flock"
        ) from None
    try:
        yield
    finally:
        lock.release()
