"""A lock beside what it guards: who holds that of a cache's entry computes its rows. Nothing heavy is imported.

Whoever computes a share of the rows holds a lock of that share, so that no worker waits for one that does other work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tl_experiments.runtime.share import WHOLE, Share

PATIENCE_SECONDS = 1.0  # before a process says that it waits


@contextmanager
def locked(entry: Path, *, share: Share = WHOLE, waiting: Callable[[], None] | None = None) -> Iterator[bool | None]:
    """Hold the lock of an entry, or of a file, which need not exist.

    Args:
        share: of its rows.
        waiting: is called once if another process has the lock, which is then waited for; None does not wait.

    Yields:
        True with the lock, False where another process has it, None where locks do not work.
    """
    # A soft lock, filelock's own answer to such a disk, would outlive a killed process.
    path = _path(entry, share)
    lock = FileLock(path, fallback_to_soft=False)
    taken = _take(lock, waiting)
    try:
        yield taken
    finally:
        if taken and share != WHOLE:  # there may be thousands
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            lock.release()


def shared_out(entry: Path) -> bool:
    """Whether another process fills a share of an entry; False where locks do not work."""
    return any(_held(path) for path in entry.parent.glob(f"{entry.name}.*-of-*.lock"))


def _held(path: Path) -> bool:
    lock = FileLock(path, fallback_to_soft=False)
    if _take(lock, None) is False:
        return True
    with suppress(OSError):
        path.unlink()  # of a process that died
        lock.release()
    return False


def _path(entry: Path, share: Share) -> Path:
    share_name = "" if share == WHOLE else f".{share.index + 1}-of-{share.count}"
    return entry.with_name(f"{entry.name}{share_name}.lock")


def _take(lock: FileLock, waiting: Callable[[], None] | None) -> bool | None:
    try:
        try:
            lock.acquire(timeout=PATIENCE_SECONDS if waiting else 0)
        except Timeout:
            if waiting is None:
                return False
            waiting()
            lock.acquire()
    except (OSError, NotImplementedError):
        return None
    return True
