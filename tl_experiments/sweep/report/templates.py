"""How pages are made: templates in which every value is text, never markup, and styles and scripts inside the page."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
LONG = 34  # characters that a cell takes on one line


def environment(folder: Path) -> Environment:
    """Return the templates of this room.

    Args:
        folder: of the page, to which its links are relative.
    """
    made = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": number, "long": long, "address": partial(address, folder=folder)}
    return made


def inline(name: str) -> Markup:
    """Return a file of this room as a part of a page."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def long(text: str) -> str:
    """Return the CSS class of a cell whose text must be broken, with a space before it; nothing for others."""
    return " long" if len(text) > LONG else ""


def address(path: Path, *, folder: Path) -> str:
    """Return a file's address relative to a page in `folder`."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def number(value: Any, form: str = ".4f") -> str:
    """Return a number as tables show it; what is none as a dash."""
    return format(value, form) if isinstance(value, int | float) else "–"
