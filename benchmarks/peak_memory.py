"""Peak memory of a command and of all processes that it starts; Linux only."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

POLL_SECONDS = 0.02  # the kernel keeps each process's peak, so that what lies between two looks is seen too
PROC = Path("/proc")


def can_measure() -> bool:
    return sys.platform == "linux" and (PROC / "thread-self" / "children").exists()


@dataclass(frozen=True)
class Peak:
    """MiB of resident memory.

    Attributes:
        largest: peak of the largest process.
        together: sum of the peaks of those that were alive at one time, shared pages counted for each; never too small.
    """

    largest: float
    together: float


def peak_memory(process: Popen) -> Peak:
    """Watch a command until it ends."""
    largest, together, known = 0.0, 0.0, set[int]()
    while process.poll() is None:
        alive = set(family(process.pid))
        # One that is new may still be on its parent's memory, until it runs a program of its own.
        peaks = [_peak_of(pid) for pid in alive & known]
        largest, together = max([largest, *peaks]), max(together, sum(peaks))
        known = alive
        time.sleep(POLL_SECONDS)
    return Peak(largest, together)


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with suppress(OSError):  # it may end meanwhile
        for task in (PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def _peak_of(pid: int) -> float:
    """Peak resident memory so far, in MiB; 0 of a process that is gone."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
