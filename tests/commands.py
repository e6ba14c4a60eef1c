"""Commands in real processes: how they ended, and the signals that a shell would let them have."""

import signal
from dataclasses import dataclass


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
