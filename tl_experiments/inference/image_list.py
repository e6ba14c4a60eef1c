"""The images that a command is given: a file, a folder, a pattern, a table or the paths on standard input, one by one.

Nothing but the names in one folder is held in memory, whatever the number of images. An image is called as its path can
be typed where the command was; in a table or on standard input, as it is written there.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tl_experiments.data.decoding import EXTENSIONS
from tl_experiments.data.image_files import printable
from tl_experiments.data.image_table import iter_image_paths
from tl_experiments.data.table_rows import is_table
from tl_experiments.inference.image_pattern import has_wildcards, matching_files
from tl_experiments.inference.image_walk import images_below
from tl_experiments.runtime.errors import DataError

STDIN = "-"
SOURCES = "a file, folder, 'pattern*.jpg', CSV or Parquet with image_path, or - for paths on standard input"


class Listed(NamedTuple):
    """An image that was found.

    Attributes:
        name: what it is called.
        path: to open it.
        fault: why it cannot be; None where that is to be seen.
    """

    name: str
    path: str
    fault: str | None = None


def list_images(source: str, *, stdin: BinaryIO | None = None) -> Iterator[Listed]:
    """Find images, in an order that is the same each time: by name within a folder, its files before its folders.

    Args:
        source: as it was typed. Hidden files and folders of a folder are ignored, and files without an image's
            extension; links are followed.
        stdin: where paths are read that `-` stands for; None is the process's own.

    Raises:
        DataError: there is nothing of this name, or no image in it; at once for all but a table's rows.
    """
    if source == STDIN:
        return _some(_lines(stdin or sys.stdin.buffer), f"{STDIN}: no path came on standard input; expected one a line")
    path = os.path.expanduser(source)  # noqa: PTH111 - pathlib would drop the ./ that was typed
    if os.path.isdir(path):  # noqa: PTH112
        found = (Listed(name, name, fault) for name, fault in images_below(path))
        return _some(found, f"{printable(source)}: no images in this folder; expected {' '.join(EXTENSIONS)}")
    if os.path.lexists(path):
        return _listed_in(Path(path)) if is_table(Path(path)) else iter([Listed(path, path)])
    if has_wildcards(path):
        found = (Listed(name, name) for name in matching_files(path))
        return _some(found, f"{printable(source)}: no file matches; expected {SOURCES}")
    raise DataError(f"{printable(source)}: no such file or folder; expected {SOURCES}")


def _some(found: Iterable[Listed], otherwise: str) -> Iterator[Listed]:
    """See that there is a first one."""
    rest = iter(found)
    first = next(rest, None)
    if first is None:
        raise DataError(otherwise)
    return chain([first], rest)


def _listed_in(table: Path) -> Iterator[Listed]:
    paths = iter_image_paths(table)
    first = next(paths)  # a table that is none is refused before anything else is done
    return (Listed(name, os.path.join(table.parent, name)) for name in chain([first], paths))  # noqa: PTH118


def _lines(stdin: BinaryIO) -> Iterator[Listed]:
    for line in stdin:
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield Listed(name, name)
