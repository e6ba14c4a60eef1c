"""Tables of predictions as CSV, JSON lines or Parquet, written in parts and joined in memory that does not grow.

What is written depends on the rows alone, not on where one part ends and the next begins. Probabilities are written
with the digits that tell one float32 from the next. File names are written as they are, though a spreadsheet may take
one that begins with `=` for a formula: what is written is to be found again.
"""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from tl_experiments.runtime.errors import SettingError

_GROUP_VALUES = 4_000_000  # of a Parquet file's row group, which is in memory as a whole
_GROUP_ROWS = 2**17


class Format(Protocol):
    """How a table is written."""

    def write_part(self, table: pa.Table, file: BinaryIO) -> None: ...

    def join(self, parts: Sequence[Path], file: BinaryIO, *, schema: pa.Schema) -> None:
        """Write the whole from its parts; they hold at least one row."""
        ...


def format_of(output: Path) -> Format:
    """Return the format that the extension of a path asks for.

    Raises:
        SettingError: it asks for none.
    """
    formats: dict[str, type[Format]] = {".csv": Csv, ".parquet": Parquet, ".jsonl": JsonLines}
    if output.suffix.lower() not in formats:
        raise SettingError(f"--output {output}: expected a path that ends in {', '.join(formats)}")
    return formats[output.suffix.lower()]()


class Csv:
    """A header, and a line for each image; what is missing is empty."""

    def write_part(self, table: pa.Table, file: BinaryIO) -> None:
        file.write(_csv_lines(zip(*(_texts(column) for column in table.columns), strict=True)))

    def join(self, parts: Sequence[Path], file: BinaryIO, *, schema: pa.Schema) -> None:
        file.write(_csv_lines([schema.names]))
        _copy(parts, file)


class JsonLines:
    """An object for each image; what is missing is null."""

    def write_part(self, table: pa.Table, file: BinaryIO) -> None:
        for row in zip(*(_values(column) for column in table.columns), strict=True):
            line = json.dumps(dict(zip(table.column_names, row, strict=True)), ensure_ascii=False, allow_nan=False)
            file.write(f"{line}\n".encode())

    def join(self, parts: Sequence[Path], file: BinaryIO, *, schema: pa.Schema) -> None:  # noqa: ARG002
        _copy(parts, file)


class Parquet:
    """Columns of strings and float32; what is missing is null."""

    def write_part(self, table: pa.Table, file: BinaryIO) -> None:
        pq.write_table(table, file)

    def join(self, parts: Sequence[Path], file: BinaryIO, *, schema: pa.Schema) -> None:
        rows = min(_GROUP_ROWS, max(1, _GROUP_VALUES // len(schema)))
        with pq.ParquetWriter(file, schema) as writer:
            for group in _cut((pq.read_table(path, schema=schema) for path in parts), rows):
                writer.write_table(group, row_group_size=rows)


def _cut(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut tables that follow each other into such of so many rows, and a last one that may be smaller."""
    held = list[pa.Table]()
    for table in tables:
        held.append(table)
        while sum(part.num_rows for part in held) >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows).combine_chunks()
            held = [whole.slice(rows)]
    if rest := [part for part in held if part.num_rows]:
        yield pa.concat_tables(rest).combine_chunks()


def _copy(parts: Sequence[Path], file: BinaryIO) -> None:
    for path in parts:
        with path.open("rb") as part:
            shutil.copyfileobj(part, file)


def _csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Write lines that end in \\n; names with \\r are quoted too, which Python 3.11 does only where lines end in it."""
    text, line = io.StringIO(), io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")
    for row in rows:
        line.seek(0)
        line.truncate()
        writer.writerow(row)
        text.write(f"{line.getvalue()[:-2]}\n")
    return text.getvalue().encode()


def _texts(column: pa.ChunkedArray) -> list[str]:
    return column.cast(pa.string()).fill_null("").to_pylist()


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values: of a float32 the number that its shortest decimal says, not that of all its bits."""
    if not kinds.is_floating(column.type):
        return column.to_pylist()
    return [None if text is None else float(text) for text in column.cast(pa.string()).to_pylist()]
