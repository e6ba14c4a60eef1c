"""Commands in real processes: how they ended, what is waited for, their pages, and signals as a shell lets them be."""

import signal
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

SMALL = ("backbone=timm", "backbone.name=test_efficientnet", "backbone.weights=null")  # a network of five small stages


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """What it says after `error: `."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


def take_signals() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(
    condition: Callable[[], object],
    told: Callable[[], str] = lambda: "it did not happen in time",
    *,
    seconds: float = 120,
) -> None:
    """Wait until something is so; after so many seconds an error says what was `told`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def page(address: str, *, seconds: float = 120) -> str:
    """Return a page, as soon as its server answers; after so many seconds why it does not is raised."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
