"""The lock of a run's folder: who holds it runs the run. A process that dies gives it up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.folder_lock import NoLocks, held

LOCK = ".job.lock"


def still_runs(folder: Path, *, seconds: float) -> bool:
    """Whether a process is running the run in `folder`, perhaps on another machine; none can where there are no locks.

    Args:
        folder: of a run.
        seconds: that its lock is waited for: helpers of a killed run hold it until they end.
    """
    if not (folder / LOCK).exists():
        return False
    try:
        with held(folder / LOCK, seconds=seconds):
            return False
    except NoLocks:
        return False
    except Timeout:
        return True


@contextmanager
def alone_in(folder: Path, *, seconds: float) -> Iterator[None]:
    """Keep another process, such as one that a killed sweep left behind on a cluster, from the same folder.

    Args:
        folder: of the run; made when it is missing.
        seconds: that its lock is waited for.

    Raises:
        NoLocks: the file system of the folder cannot keep it away.
        RunFailed: it is still running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder / LOCK, seconds=seconds):
            yield
    except Timeout:
        raise RunFailed(f"{folder}: another process is still running this run; end it, then go on") from None
