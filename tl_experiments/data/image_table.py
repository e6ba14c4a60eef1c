"""A table of images: a CSV or Parquet file with the columns `image_path`, `label` and, if its maker split it, `split`.

Paths are relative to the folder of the table. Spaces around labels and splits mean nothing.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tl_experiments.data.image_files import printable
from tl_experiments.data.naming import SPLIT_NAMES
from tl_experiments.data.table_rows import Row, column_names, iter_rows, require_table, row_name
from tl_experiments.runtime.errors import DataError

PATH, LABEL, SPLIT = "image_path", "label", "split"
_MOST_NAMED = 5


@dataclass(frozen=True)
class ImageTable:
    """What a table says of N images.

    Attributes:
        path: of the table.
        image_paths: as they are written; None where the images were not asked for by path.
        labels: names of classes.
        splits: train, val or test; None where there is no such column.
        rows: (N,) int64, where each stands, for `row_name`.
    """

    path: Path
    image_paths: tuple[str, ...] | None = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    splits: tuple[str, ...] | None = field(repr=False)
    rows: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


def read_image_table(path: Path) -> ImageTable:
    """Read a table of labelled images; no image is looked at.

    Args:
        path: FILE.csv or FILE.parquet.

    Raises:
        DataError: it is no such table, a row lacks its path or label, a split is unknown, or a path has two
            labels or is in two splits.
    """
    return _read(path, require_columns(path, PATH, LABEL))


def read_labels(path: Path) -> ImageTable:
    """Read the labels and splits of a table that holds the images themselves; otherwise as `read_image_table`."""
    return _read(path, require_columns(path, LABEL))


def iter_image_paths(path: Path) -> Iterator[str]:
    """Yield the paths of a table's images as they are written, whatever else the table says; none is looked at.

    The table is read through before the first is yielded, so that a fault in its last row costs no work. It is not held
    in memory.

    Args:
        path: FILE.csv or FILE.parquet.

    Raises:
        DataError: it is no such table, or a row lacks its path.
    """
    columns, faults, count = require_columns(path, PATH), _Faults(path), 0
    for number, (image_path,) in iter_rows(path, columns):
        _see_path(faults, number, image_path)
        count += 1
    faults.require_none()
    _require_rows(path, count)
    for _, (image_path,) in iter_rows(path, columns):
        yield image_path


def require_columns(path: Path, *needed: str) -> list[str]:
    """Return the columns that are needed, and `split` where it is there.

    Raises:
        DataError: the file is no table, or lacks one of them.
    """
    require_table(path)
    there = column_names(path)
    if not there:
        raise DataError(f"{printable(path)}: empty; expected a header line, {','.join(needed)}")
    if missing := [name for name in needed if name not in there]:
        found = ", ".join(printable(name) for name in there[:10]) + (", ..." if len(there) > 10 else "")
        hint = "; values are to be separated by commas" if len(there) == 1 and set(";\t|") & set(there[0]) else ""
        raise DataError(f"{printable(path)}: no column {' and no column '.join(missing)} (there is {found}){hint}")
    return [*needed, *(name for name in (SPLIT,) if name in there and LABEL in needed)]


def _read(path: Path, columns: Sequence[str]) -> ImageTable:
    values: dict[str, list[str]] = {name: [] for name in columns}
    rows, faults, kept = list[int](), _Faults(path), dict[str, str]()
    for number, row in _seen(path, columns, faults):
        rows.append(number)
        for name, value in zip(columns, row, strict=True):
            values[name].append(kept.setdefault(value, value) if name != PATH else value)  # classes are few texts
    faults.require_none()
    _require_rows(path, len(rows))
    table = ImageTable(
        path,
        tuple(values[PATH]) if PATH in values else None,
        tuple(values[LABEL]),
        tuple(values[SPLIT]) if SPLIT in values else None,
        np.array(rows, dtype=np.int64),
    )
    _require_one_meaning(table)
    return table


def _require_rows(path: Path, count: int) -> None:
    if not count:
        raise DataError(f"{printable(path)}: no row below its header; expected one for each image")


def _seen(path: Path, columns: Sequence[str], faults: "_Faults") -> Iterator[Row]:
    """Yield rows with labels and splits as they are meant, and note what is wrong."""
    for number, row in iter_rows(path, columns):
        named = dict(zip(columns, row, strict=True))
        if PATH in named:
            _see_path(faults, number, named[PATH])
        named[LABEL] = named[LABEL].strip()
        if not named[LABEL]:
            faults.tell("label is empty", number)
        if SPLIT in named:
            split = named[SPLIT].strip().lower()
            named[SPLIT] = SPLIT_NAMES.get(split, "")
            if split not in SPLIT_NAMES:
                faults.tell(f"split {printable(split)!r} is none of {', '.join(SPLIT_NAMES)}", number)
        yield number, tuple(named.values())


def _see_path(faults: "_Faults", number: int, image_path: str) -> None:
    if not image_path.strip():
        faults.tell("image_path is empty", number)
    elif "\0" in image_path:
        faults.tell("image_path holds a null byte", number)


class _Faults:
    """What is wrong with the rows of a table, by kind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, list[int]] = defaultdict(list)

    def tell(self, kind: str, number: int) -> None:
        self._rows[kind].append(number)

    def require_none(self) -> None:
        """Raise a DataError that names the first rows of each kind of fault."""
        if self._rows:
            told = "; ".join(f"{kind} in {self._named(rows)}" for kind, rows in list(self._rows.items())[:_MOST_NAMED])
            raise DataError(f"{printable(self._path)}: {told}")

    def _named(self, rows: Sequence[int]) -> str:
        first = row_name(self._path, rows[0])
        others = "".join(f", {number}" for number in rows[1:_MOST_NAMED])
        more = f" and {len(rows) - _MOST_NAMED:,} more" if len(rows) > _MOST_NAMED else ""
        return f"{first}{others}{more}"


def _require_one_meaning(table: ImageTable) -> None:
    """See that no image is called two things, or is in two splits; the same file may stand there twice."""
    columns = {"label": table.labels, "split": table.splits or ()}
    firsts: dict[str, int] = {}
    for at, image_path in enumerate(table.image_paths or ()):
        first = firsts.setdefault(os.path.normpath(image_path), at)
        if first == at:
            continue
        for name, values in columns.items():
            if values and values[first] != values[at]:
                first_row, row = (row_name(table.path, int(table.rows[place])) for place in (first, at))
                raise DataError(
                    f"{printable(table.path)}: {printable(image_path)} is {printable(values[first])!r} in "
                    f"{first_row} and {printable(values[at])!r} in {row}; expected one {name}"
                )
