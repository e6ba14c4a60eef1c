"""The folder of a sweep: found, claimed by one process at a time, and never given to two sweeps."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.folder_lock import held
from tl_experiments.sweep import plan
from tl_experiments.sweep.plan import Plan

LATEST = "latest"
LOCK = ".sweep.lock"


def find_sweep(named: str, *, sweeps: Path) -> Path:
    """Return the absolute folder of a planned sweep.

    Args:
        named: its path, or `latest`.
        sweeps: where sweeps lie that were given no place of their own.

    Raises:
        ConfigError: there is none.
    """
    if named != LATEST:
        folder = Path(named).expanduser().absolute()
        Plan.load(folder)
        return folder
    planned = [path.parent for path in sweeps.glob(f"*/{plan.FILE}")]
    if not planned:
        raise ConfigError(f"latest: no sweep was planned in {sweeps.absolute()}; expected its folder instead")
    return max(planned, key=lambda folder: (folder / plan.FILE).stat().st_mtime_ns).absolute()


def require_unplanned(folder: Path) -> None:
    """Refuse a folder that another sweep has.

    Raises:
        ConfigError: it holds a plan.
    """
    if (folder / plan.FILE).exists():
        raise ConfigError(
            f"hydra.sweep.dir={folder}: another sweep was planned here; expected a new folder, "
            f"or sweep.resume={folder} to go on with it"
        )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other process from running the sweep in `folder`; a process that dies gives it up.

    Raises:
        ConfigError: another process runs it.
        NoLocks: the file system of the folder cannot keep others away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK, seconds=0))
        except Timeout:
            raise ConfigError(f"{folder}: another process is running this sweep; wait for it, or end it") from None
        yield
