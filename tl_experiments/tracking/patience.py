"""How long a store is waited for: for one answer, and before it is asked again after none came."""

import os
from dataclasses import dataclass

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # MLflow reads these two at each call
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
OURS = "+"  # `+5` is 5 to MLflow, and tells us that no user wrote it
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
        """Have MLflow's client wait so long and not ask again by itself, unless the user has said otherwise."""
        for variable, value in ((TIMEOUT, self.timeout), (RETRIES, 0)):
            before = os.environ.get(variable, OURS)
            if before.startswith(OURS) and before != f"{OURS}{value}":
                os.environ[variable] = f"{OURS}{value}"
