"""ledger.jsonl: what became of each job, a line for every change, written by the sweep and by its jobs."""

import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.runtime.cache_lock import locked
from tl_experiments.runtime.files import append_lines

FILE = "ledger.jsonl"
PLANNED, RUNNING, FINISHED, FAILED, KILLED = "PLANNED", "RUNNING", "FINISHED", "FAILED", "KILLED"
PRUNED = "PRUNED"  # stopped by its search, and as well done as a job that finished


@dataclass(frozen=True)
class Ledger:
    """The ledger of the sweep in `folder`; jobs on other machines may write to it at the same time."""

    folder: Path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Add lines; each entry has `job`, `state` and what else is known.

        Raises:
            OSError: they could not be written; readers and later writers cope with what is there of them.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = "".join(json.dumps({"time": now, **entry}) + "\n" for entry in entries)
        path = self.folder / FILE
        with locked(path, waiting=lambda: None):  # where locks do not work, a few lines are one write all the same
            append_lines(path, text)

    def last(self, *, of: Collection[int] | None = None) -> dict[int, dict[str, Any]]:
        """Return the last entry of each job, or of some: whoever asks after each job must not parse all of them."""
        path = self.folder / FILE
        text = path.read_bytes() if path.exists() else b""
        if of is not None:
            asked = b"|".join(b"%d" % job for job in of)
            text = b"\n".join(re.findall(rb'^.*"job": (?:' + asked + rb")[,}].*$", text, re.MULTILINE))
        return {entry["job"]: entry for entry in map(_parse, text.splitlines()) if entry is not None}


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return an entry; None for a line that was never written to its end."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "job" in entry else None
