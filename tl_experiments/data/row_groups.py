"""Images that a Parquet file holds as bytes, read a row group at a time."""

import bisect
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds
from PIL import Image

from tl_experiments.data.decoding import ImageError, decode
from tl_experiments.data.image_files import printable
from tl_experiments.data.table_rows import open_parquet, row_name
from tl_experiments.runtime.errors import DataError

IMAGE, _BYTES = "image", "bytes"
_MOST_BYTES = 10**9  # of a row group, which is in memory as a whole
_KEPT_BYTES = 256 * 2**20  # of the row groups that were read last


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column `image` of bytes, or of Hugging Face's struct of `bytes` and `path`.

    Raises:
        DataError: it has one of something else, it is no Parquet file, or its row groups are too large to be read.
    """
    with open_parquet(path) as file:
        if IMAGE not in file.schema_arrow.names:
            return False
        _require_bytes(path, file.schema_arrow.field(IMAGE).type)
        _require_small_groups(path, file.metadata)
    return True


def _require_bytes(path: Path, kind: pa.DataType) -> None:
    if kinds.is_struct(kind):
        at = kind.get_field_index(_BYTES)
        held = kind.field(at).type if at >= 0 else kind
    else:
        held = kind
    if not (kinds.is_binary(held) or kinds.is_large_binary(held)):
        raise DataError(
            f"{printable(path)}: {IMAGE} holds {printable(str(kind))}; expected the bytes of image files (binary, or a "
            "struct of bytes and path), or a column image_path"
        )


def _require_small_groups(path: Path, metadata: pq.FileMetaData) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(at) for at in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == IMAGE)
        if size > _MOST_BYTES:
            raise DataError(
                f"{printable(path)}: row group {number} holds {size / 1e9:.1f} GB of images, and one is read as a "
                f"whole; expected at most {_MOST_BYTES / 1e9:.0f} GB: write the file with row_group_size=100"
            )


class _RowGroups:
    """The column of images of one file; what is open and kept does not go to other processes."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self._path, self._file = path, None

    def __reduce__(self) -> tuple[type["_RowGroups"], tuple[Path]]:
        return type(self), (self._path,)

    def value(self, row: int) -> Any:
        """Return what a row holds: bytes, or Hugging Face's struct of them."""
        if self._file is None:
            self._file = self._open()
        group = bisect.bisect_right(self._starts, row) - 1
        return self._column(self._file, group)[row - self._starts[group]].as_py()

    def _open(self) -> pq.ParquetFile:
        file = open_parquet(self._path)
        counts = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
        self._starts = [0, *np.cumsum(counts, dtype=np.int64).tolist()]
        self._leaf = f"{IMAGE}.{_BYTES}" if kinds.is_struct(file.schema_arrow.field(IMAGE).type) else IMAGE
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        return file

    def _column(self, file: pq.ParquetFile, group: int) -> pa.ChunkedArray:
        if group not in self._kept:
            self._kept[group] = file.read_row_group(group, columns=[self._leaf], use_threads=False).column(0)
            while len(self._kept) > 1 and sum(column.nbytes for column in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]


@dataclass(frozen=True)
class RowGroupSource:
    """Images in the column `image` of a Parquet file; an image is called as the file, and by its row from 0.

    Attributes:
        path: of the file.
        labels: (N,) int64.
    """

    path: Path
    labels: np.ndarray = field(repr=False)
    known = None
    _groups: _RowGroups = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_groups", _RowGroups(self.path))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        try:
            value = self._groups.value(index)
        except (pa.ArrowException, OSError, LookupError) as error:  # damaged, or no more what it was
            reason = printable(" ".join(str(error).split()))
            raise ImageError(self._named(index), "unreadable", f"cannot be read ({reason})") from error
        content = value.get(_BYTES) if isinstance(value, dict) else value
        if content is None:
            raise ImageError(self._named(index), "empty", "the row holds no bytes of an image; fill or remove it")
        return content

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return decode(content, name=self._named(index))

    def name(self, index: int) -> str:
        return f"{printable(self.path.stem)}/{index}"

    def _named(self, index: int) -> str:
        return f"{printable(self.path)}, {row_name(self.path, index)}"
