"""How long a store is waited for: for one answer, and before it is asked again after none came."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # MLflow reads these two at each call
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
OURS = "TL_TRACKING_WAIT"  # what was set here and by no user; processes that are started meanwhile inherit it as well
SHORTEST, LONGEST = 5, 60  # seconds
FIRST_PAUSE = 1


@dataclass
class Patience:
    """A breaker: calls wait shortly at first, and longer after each that failed, so that a slow store is reached.

    Attributes:
        timeout: seconds that one answer may take.
        num_failed: calls since the last answer.
        ask_at: when the store may be asked again, on the monotonic clock.
        reason: why the last call failed.
    """

    timeout: int = SHORTEST
    num_failed: int = 0
    ask_at: float = 0.0
    reason: str = ""

    @property
    def is_away(self) -> bool:
        """Whether the last call failed."""
        return self.num_failed > 0

    def failed(self, reason: str, *, now: float) -> None:
        self.num_failed += 1
        self.timeout = min(2 * self.timeout, LONGEST)
        self.ask_at = now + min(FIRST_PAUSE * 2 ** (self.num_failed - 1), LONGEST)
        self.reason = reason

    def answered(self) -> None:
        """What was waited long enough for is kept: a slow store stays slow."""
        self.num_failed, self.ask_at, self.reason = 0, 0.0, ""

    def apply(self) -> None:
        """Have MLflow's client wait so long and not ask again by itself, unless the user has said otherwise.

        Until `release`: the variables are the whole process's, and so are those calls of MLflow that the user makes.
        """
        with _lock:
            _applied.add(id(self))
            ours = _ours()
            wanted = {TIMEOUT: str(self.timeout), RETRIES: "0"}
            new = {key: value for key, value in wanted.items() if os.environ.get(key, ours.get(key)) == ours.get(key)}
            if new != ours:  # they are written seldom: a library that reads one meanwhile may be hurt
                os.environ.update(new)
                os.environ[OURS] = " ".join(f"{key}={value}" for key, value in new.items())

    def release(self) -> None:
        """Let MLflow's client wait as it would, once nothing else in this process is waited for."""
        with _lock:
            _applied.discard(id(self))
            if not _applied:
                for key, value in _ours().items():
                    if os.environ.get(key) == value:
                        del os.environ[key]
                os.environ.pop(OURS, None)


_lock = threading.Lock()
_applied: set[int] = set()  # of those that wait


def _ours() -> dict[str, str]:
    """Return the variables that were set by this package, here or in a process that has started this one."""
    parts = (item.partition("=") for item in os.environ.get(OURS, "").split())
    return {key: value for key, _, value in parts if key in (TIMEOUT, RETRIES)}


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Have MLflow's client wait for each answer for some seconds and not ask again, within the block."""
    patience = Patience(timeout=seconds)
    patience.apply()
    try:
        yield
    finally:
        patience.release()
