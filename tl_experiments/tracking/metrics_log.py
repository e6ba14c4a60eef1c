"""metrics.jsonl: the local truth about a run, one JSON object an epoch, readable while the run goes on."""

import errno
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tl_experiments.runtime.files import publish_text


def append_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append each row as one line, all of them or none; a value that is not finite becomes null, since JSON has none.

    Raises:
        OSError: the disk does not take them.
    """
    text = "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows).encode()
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(end)
            raise


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def keep_epochs(path: Path, epochs: int) -> None:
    """Remove the rows of later epochs, and a last line that is half written; those are going to be written again."""
    rows = [row for row in read_metrics(path) if row["epoch"] <= epochs] if path.exists() else []
    if rows:
        publish_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    else:
        path.unlink(missing_ok=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows; a last line that a killed process left half written is no row."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def best_epoch(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return `val/acc_best` and `val/epoch_best` of the epochs so far, chosen as the engine chooses; empty of none."""
    known = [row for row in rows if row.get("val/acc") is not None and row.get("val/loss") is not None]
    best = max(known, key=lambda row: (row["val/acc"], -row["val/loss"]), default=None)  # of equal ones the first
    return {"val/acc_best": best["val/acc"], "val/epoch_best": best["epoch"]} if best else {}
