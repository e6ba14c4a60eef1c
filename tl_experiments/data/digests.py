"""Digests of many images in 32 bytes each, where a text of each would take five times as much."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

BYTES = 32  # of a sha256
_CHUNK = 4096  # that are texts at one time


@dataclass(frozen=True, eq=False)
class Digests(Sequence[str]):
    """A sequence of sha256 in hexadecimal.

    Attributes:
        rows: uint8 (N, 32), which may lie in a file that is mapped into memory.
        places: (M,) int64, of the M rows that the sequence has; None: it has all of them.
    """

    rows: np.ndarray
    places: np.ndarray | None = None

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Digests":
        """Take digests in hexadecimal."""
        return cls(np.frombuffer(bytes.fromhex("".join(texts)), dtype=np.uint8).reshape(-1, BYTES))

    def __len__(self) -> int:
        return len(self.rows if self.places is None else self.places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Digests": ...
    def __getitem__(self, index: int | slice) -> "str | Digests":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.rows[index if self.places is None else self.places[index]].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            content = self.array(slice(start, start + _CHUNK)).tobytes()
            yield from (content[at : at + BYTES].hex() for at in range(0, len(content), BYTES))

    def take(self, positions: np.ndarray) -> "Digests":
        """Return the digests at some positions, (M,) int64, without copying them."""
        return Digests(self.rows, positions if self.places is None else self.places[positions])

    def array(self, part: slice = slice(None)) -> np.ndarray:
        """Return uint8 (M, 32), of all or of a part of them."""
        return self.rows[part] if self.places is None else self.rows[self.places[part]]
