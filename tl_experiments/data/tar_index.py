"""What the tar files of a dataset hold: where each image lies, its class, digest and name, mapped into memory.

An index is one Arrow file. In memory it takes no room of its own: its columns are pages of the file, which the system
reads when they are looked at, and drops when it needs the room.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from tl_experiments.data.decoding import DECODING, decoders
from tl_experiments.data.digests import BYTES, Digests
from tl_experiments.data.image_files import printable
from tl_experiments.runtime.errors import DataError

INDEX = "index.arrow"
FORMAT = 1
_METADATA = b"tl_experiments"
_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("offset", pa.int64()),  # of the first byte of the image in its shard
        ("size", pa.int64()),  # in bytes
        ("label", pa.int32()),
        ("sha256", pa.binary(BYTES)),
        ("name", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class TarShard:
    """One tar file.

    Attributes:
        place: its path, absolute or relative to the folder of the index; or its URL.
        split: train, val or test.
        bytes: how large it is.
    """

    place: str
    split: str
    bytes: int


@dataclass(frozen=True)
class TarFault:
    """What is wrong with the image of a record."""

    record: int
    kind: str
    reason: str


def current_decoding() -> dict[str, Any]:
    """What decides which images can be decoded."""
    return {"decoding": DECODING, **decoders()}


class TarIndex:
    """An index that was written before; its records are in the order in which they lie in the shards.

    Attributes:
        path: of its file.
        shards: in order, those of a split one after another.
        class_names: in label order.
        faults: of images that could not be decoded.
        checked: whether the others were decoded by the decoders that are here now.
    """

    def __init__(self, path: Path) -> None:
        """Map a file into memory.

        Raises:
            DataError: it is no index, or a damaged one.
        """
        self.path = path
        try:
            with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
                self._batch = reader.get_batch(0)
                described = json.loads((reader.schema.metadata or {})[_METADATA])
            if described["format"] != FORMAT:
                raise DataError(f"{printable(path)}: an index of format {described['format']}; expected {FORMAT}")
            self.shards = tuple(TarShard(**shard) for shard in described["shards"])
            self.class_names = tuple(map(str, described["class_names"]))
            self.faults = tuple(TarFault(**fault) for fault in described["faults"])
            _require_typed([*self.shards, *self.faults])
            self.checked = described["decoding"] == current_decoding()
            self._batch.validate(full=True)
            sound = self._is_sound()
        except (OSError, pa.ArrowException, LookupError, ValueError, TypeError, RecursionError) as error:
            reason = printable(" ".join(str(error).split()))
            raise DataError(f"{printable(path)}: cannot be read as an index of shards ({reason})") from error
        if not sound:
            raise DataError(f"{printable(path)}: damaged, as its records lead out of its shards; make it again")

    def __reduce__(self) -> tuple[type["TarIndex"], tuple[Path]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return self._batch.num_rows

    @cached_property
    def shard(self) -> np.ndarray:
        """(N,) int32."""
        return self._batch.column("shard").to_numpy()

    @cached_property
    def offset(self) -> np.ndarray:
        """(N,) int64."""
        return self._batch.column("offset").to_numpy()

    @cached_property
    def size(self) -> np.ndarray:
        """(N,) int64."""
        return self._batch.column("size").to_numpy()

    @cached_property
    def label(self) -> np.ndarray:
        """(N,) int32."""
        return self._batch.column("label").to_numpy()

    @cached_property
    def digests(self) -> Digests:
        column = self._batch.column("sha256")
        rows = np.frombuffer(column.buffers()[1], dtype=np.uint8).reshape(-1, BYTES)
        return Digests(rows[column.offset : column.offset + len(column)])

    @cached_property
    def _names(self) -> pa.Array:
        return self._batch.column("name")

    def name(self, record: int) -> str:
        """Return what people call the image of a record."""
        return self._names[record].as_py()

    def _is_sound(self) -> bool:
        if self._batch.schema.remove_metadata() != _SCHEMA or any(column.null_count for column in self._batch.columns):
            return False
        if not len(self):
            return True
        known = (self.shard >= 0).all() and (self.shard < len(self.shards)).all()
        labelled = (self.label >= 0).all() and (self.label < len(self.class_names)).all()
        if not (known and labelled and (self.offset >= 0).all() and (self.size >= 0).all()):
            return False
        room = np.array([shard.bytes for shard in self.shards], dtype=np.int64)[self.shard] - self.offset
        return bool((self.size <= room).all()) and all(0 <= fault.record < len(self) for fault in self.faults)


def _require_typed(described: Sequence[TarShard | TarFault]) -> None:
    """See that what was read as JSON is what it should be.

    Raises:
        TypeError: it is not.
    """
    for one in described:
        for name, value in asdict(one).items():
            expected = type(one).__annotations__[name]
            if type(value) is not expected or (expected is int and not 0 <= value < 2**63):
                told = "a text" if expected is str else "a count"
                raise TypeError(f"{name} {str(value)[:50]!r} of one of its {type(one).__name__}s is not {told}")


@dataclass(frozen=True)
class Records:
    """What lies in one shard or in several, one after another.

    Attributes:
        offset, size: (N,) int64.
        label: (N,) integers.
        sha256: uint8 (N, 32).
        name: of N images.
    """

    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    name: pa.Array

    def __len__(self) -> int:
        return len(self.offset)

    def relabelled(self, numbers: np.ndarray) -> "Records":
        """Return the same with another number for each label, (labels,) int32."""
        return replace(self, label=numbers[self.label])


def write_index(
    file: BinaryIO,
    *,
    shards: Sequence[TarShard],
    records: Sequence[Records],
    class_names: Sequence[str],
    faults: Sequence[TarFault] = (),
) -> None:
    """Write an index of images that were just decoded, but for those with faults.

    Args:
        file: open.
        shards: in order.
        records: of each shard.
        class_names: in label order.
        faults: by the number of the record among those of all shards.
    """
    described: Mapping[str, Any] = {
        "format": FORMAT,
        "class_names": list(class_names),
        "shards": [asdict(shard) for shard in shards],
        "decoding": current_decoding(),
        "faults": [asdict(fault) for fault in faults],
    }
    schema = _SCHEMA.with_metadata({_METADATA: json.dumps(described)})
    sha256 = np.concatenate([np.zeros((0, BYTES), np.uint8), *(part.sha256 for part in records)])
    columns = [
        pa.array(np.repeat(np.arange(len(shards), dtype=np.int32), [len(part) for part in records])),
        pa.array(np.concatenate([np.zeros(0, np.int64), *(part.offset for part in records)])),
        pa.array(np.concatenate([np.zeros(0, np.int64), *(part.size for part in records)])),
        pa.array(np.concatenate([np.zeros(0, np.int32), *(part.label.astype(np.int32) for part in records)])),
        pa.Array.from_buffers(pa.binary(BYTES), len(sha256), [None, pa.py_buffer(sha256)]),
        pa.concat_arrays([pa.array([], pa.large_string()), *(part.name for part in records)]),
    ]
    with pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
