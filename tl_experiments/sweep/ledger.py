"""ledger.jsonl: what became of each job, a line for every change, written by the sweep and by its jobs."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

FILE = "ledger.jsonl"
LOCK = ".ledger.lock"
PLANNED, RUNNING, FINISHED, FAILED, KILLED = "PLANNED", "RUNNING", "FINISHED", "FAILED", "KILLED"


@dataclass(frozen=True)
class Ledger:
    """The ledger of the sweep in `folder`; jobs on other machines may write to it at the same time."""

    folder: Path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Add lines; each entry has `job`, `state` and what else is known."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = "".join(json.dumps({"time": now, **entry}) + "\n" for entry in entries)
        path = self.folder / FILE
        with FileLock(self.folder / LOCK), path.open("a+b") as file:
            if file.tell() and not _ends_with_newline(path):
                text = f"\n{text}"  # a process that was killed left half a line
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def last(self) -> dict[int, dict[str, Any]]:
        """Return the last entry of each job."""
        path = self.folder / FILE
        lines = path.read_bytes().splitlines() if path.exists() else []
        return {entry["job"]: entry for entry in map(_parse, lines) if entry is not None}


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return an entry; None for a line that was never written to its end."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "job" in entry else None
