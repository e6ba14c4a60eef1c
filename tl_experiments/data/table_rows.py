"""Rows of a CSV or Parquet file as text, one at a time: no file is held in memory."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from tl_experiments.data.image_files import printable
from tl_experiments.runtime.errors import DataError

CSV, PARQUET = ".csv", ".parquet"
_CHUNK = 10_000  # rows of a Parquet file that are text at a time

Row = tuple[int, tuple[str, ...]]  # where it is, and its values


def is_table(path: Path) -> bool:
    """Whether a path is called as a table is, and is no folder."""
    return path.suffix.lower() in (CSV, PARQUET) and not path.is_dir()


def require_table(path: Path) -> None:
    """See that a path can be a table.

    Raises:
        DataError: it has neither extension, or there is no such file.
    """
    if path.suffix.lower() not in (CSV, PARQUET):
        raise DataError(f"{printable(path)}: expected a table, FILE{CSV} or FILE{PARQUET}")
    if not path.is_file():  # before it is opened: opening a pipe would wait for its writer
        raise DataError(f"{printable(path)}: no such file; expected a table of images")


def column_names(path: Path) -> list[str]:
    """Return the names of the columns, in their order.

    Raises:
        DataError: the file cannot be read as what its extension says, or a name is there twice.
    """
    if _is_parquet(path):
        with open_parquet(path) as file:
            names = list(file.schema_arrow.names)
    else:
        names = next(_csv_rows(path), (0, ()))[1]
    names = [name.strip() for name in names]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{printable(path)}: two columns are called {printable(name)!r}; expected each name once")
    return names


def iter_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield each row's number and its values in some columns; what is missing is an empty text.

    Args:
        path: of a table.
        columns: that it has.

    Raises:
        DataError: the file cannot be read, or a row has other columns than the header, or a column holds no text.
    """
    return _parquet_texts(path, columns) if _is_parquet(path) else _csv_texts(path, columns)


def row_name(path: Path, number: int) -> str:
    """Call a row as its readers count: lines of a CSV file from 1, rows of a Parquet file from 0."""
    return f"{'row' if _is_parquet(path) else 'line'} {number}"


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == PARQUET


def _csv_texts(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    names, rows = column_names(path), _csv_rows(path)
    places = [names.index(column) for column in columns]
    next(rows, None)
    for number, values in rows:
        if len(values) != len(names):
            raise DataError(
                f"{printable(path)}, line {number}: {len(values)} values where the header has {len(names)} columns; "
                'put values that hold a comma into "quotes"'
            )
        yield number, tuple(values[place] for place in places)


def _csv_rows(path: Path) -> Iterator[Row]:
    """The header and all rows that are not blank, by the number of their last line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            try:
                for values in reader:
                    if values:
                        yield reader.line_num, tuple(values)
            except csv.Error as error:
                raise DataError(f"{printable(path)}, line {reader.line_num}: not CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: not text in UTF-8; save it as that") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror})") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; only its footer is read.

    Raises:
        DataError: it is none.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{printable(path)}: not a Parquet file ({_one_line(error)})") from error


def _parquet_texts(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with open_parquet(path) as file:
        names_of = {name: _class_names(file.schema_arrow, name) for name in columns}
        stored, number = {name.strip(): name for name in file.schema_arrow.names}, 0
        try:
            for batch in file.iter_batches(_CHUNK, columns=[stored[name] for name in columns]):
                texts = [_texts(path, name, batch.column(stored[name]), names_of[name]) for name in columns]
                for values in zip(*texts, strict=True):
                    yield number, values
                    number += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{printable(path)}: cannot be read from row {number} on ({_one_line(error)})") from error


def _texts(path: Path, name: str, column: pa.Array, class_names: Sequence[str] | None) -> list[str]:
    """A column's values as text: of categories their names, of class numbers too where the file tells them."""
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if class_names is not None and kinds.is_integer(column.type):
        known = range(len(class_names))
        return [str(class_names[value]) if value in known else "" for value in column.to_pylist()]
    readable = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_boolean, kinds.is_null)
    if not any(holds(column.type) for holds in readable):
        raise DataError(f"{printable(path)}: {name} holds {column.type}; expected text, or whole numbers")
    return ["" if value is None else str(value) for value in column.cast(pa.large_string()).to_pylist()]


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names of a column's numbers, where Hugging Face's `datasets` wrote them into the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names: Any = features[column]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)
