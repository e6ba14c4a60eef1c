"""What faults were tried and what they did, for `scripts/faults`: tests record figures, the rows have a fixed order."""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

FILE = "TL_SCORECARD"  # where figures are collected, a JSON object a line
ROWS = (
    "kill -9 and resume",
    "kill at every syscall",
    "disk full at every write",
    "disk full for good",
    "power cut",
    "processes on one key",
    "lock holder killed",
    "bit flips",
    "cost of verification",
    "disk full while caching",
    "tracking",
    "SIGTERM and SIGINT",
    "rank killed",
    "reproducibility",
    "malicious configs",
    "tampered checkpoints",
    "typos",
    "bad values",
    "bad images",
    "golden images",
)
FULL = os.environ.get("TL_FAULTS") == "full"


def count(*, ordinary: int, full: int) -> int:
    """Return how often to try a fault: in the ordinary suite, or in `scripts/faults`."""
    return full if FULL else ordinary


def record(row: str, **figures: object) -> None:
    """Keep the figures of a row of the scorecard; a row that is not in `ROWS`, or part of one, comes after them.

    A figure named `tried` says what the others belong to, where a row has several lines.
    """
    if path := os.environ.get(FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, **figures}, default=str) + "\n")


def skip(row: str, reason: str) -> NoReturn:
    """Skip a test, and say so in its row."""
    record(row, skipped=reason)
    pytest.skip(reason)
