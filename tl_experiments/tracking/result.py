"""result.json: how a run ended, read back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_result(folder: Path) -> dict[str, Any]:
    """Return a run's `result.json`; empty where it did not get that far, or where the file cannot be read."""
    try:
        path = folder / "result.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def is_finished(result: Mapping[str, Any], *, uid: str) -> bool:
    """Whether a `result.json` is whole, and of the run with this uid."""
    return result.get("uid") == uid and result.get("status") == "FINISHED"
