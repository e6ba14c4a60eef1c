"""A lock beside what it guards: who holds that of a cache's entry computes its rows. Nothing heavy is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE_SECONDS = 1.0  # before a process says that it waits


@contextmanager
def locked(entry: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[bool | None]:
    """Hold the lock of an entry, or of a file, which need not exist.

    Args:
        waiting: is called once if another process has the lock, which is then waited for; None does not wait.

    Yields:
        True with the lock, False where another process has it, None where locks do not work.
    """
    # A soft lock, filelock's own answer to such a disk, would outlive a killed process.
    lock = FileLock(entry.with_name(f"{entry.name}.lock"), fallback_to_soft=False)
    taken = _take(lock, waiting)
    try:
        yield taken
    finally:
        with suppress(OSError):
            lock.release()


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
