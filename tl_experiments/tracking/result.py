"""result.json: how a run ended, read back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = {"best val/acc": "val/acc_best", "test/acc": "test/acc"}


def read_result(folder: Path) -> dict[str, Any]:
    """Return a run's `result.json`; empty where it did not get that far, or where the file cannot be read."""
    try:
        path = folder / "result.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def finished_line(folder: Path) -> str:
    """Say that the run in a folder has finished, and how well."""
    result = read_result(folder)
    figures = [f"{name} {result[key]:.4f}" for name, key in FIGURES.items() if isinstance(result.get(key), float)]
    return f"{folder}: the run has finished: {', '.join(figures) or 'without figures'}"


def is_finished(result: Mapping[str, Any], *, uid: str) -> bool:
    """Whether a `result.json` is whole, and of the run with this uid: one that its search has stopped is, too."""
    return result.get("uid") == uid and result.get("status") in ("FINISHED", "PRUNED")
