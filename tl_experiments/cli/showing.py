"""How verbs show what they found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160  # columns of a table that no terminal limits


def wide_console() -> Console:
    """Return where tables are printed."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def local_time(moment: str) -> str:
    """Return an ISO 8601 time as people read it, in their own zone; what is none as it is.

    >>> local_time("yesterday")
    'yesterday'
    """
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return moment


def figure(value: Any, form: str = ".4f") -> str:
    """Return a number as tables show it; what is none as a dash."""
    return format(value, form) if isinstance(value, int | float) else "–"


def finite(node: Any) -> Any:
    """Return the same as JSON can hold it: a number that is not finite becomes null."""
    if isinstance(node, Mapping):
        return {key: finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
