"""Rows of a tensor by position and by digest, as bytes, while they are gathered."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

ComputeRows = Callable[[np.ndarray], Iterator[torch.Tensor]]


class RowTable:
    """A tensor that is filled row by row.

    Attributes:
        digests: N.
        row_bytes: size of one row.
        place: digest → the first position that has it.
        firsts: (M,) int64, these positions, ascending.
        have: (N,) bool, which of them are filled.
    """

    def __init__(self, rows: torch.Tensor, digests: Sequence[str]) -> None:
        """Take a tensor (N, ...), contiguous and on the CPU, and the digests of what its N rows are computed from."""
        self._rows = rows
        self._bytes = rows.detach().view(-1).view(torch.uint8).numpy().data
        self.digests = digests
        self.row_bytes = len(self._bytes) // len(digests)
        self.place: dict[str, int] = {}
        for position, digest in enumerate(digests):
            self.place.setdefault(digest, position)
        self.firsts = np.sort(np.fromiter(self.place.values(), dtype=np.int64, count=len(self.place)))
        self.have = np.zeros(len(digests), dtype=bool)

    def missing(self) -> np.ndarray:
        """Return the positions (any,) int64 whose rows are to be computed, ascending."""
        return self.firsts[~self.have[self.firsts]]

    def row(self, position: int) -> memoryview:
        """Return the bytes of a row, which can be written."""
        return self._bytes[position * self.row_bytes : (position + 1) * self.row_bytes]

    def put(self, position: int, row: bytes) -> None:
        """Fill a row."""
        self.row(position)[:] = row
        self.have[position] = True

    def take(self, missing: np.ndarray, compute: ComputeRows) -> Iterator[np.ndarray]:
        """Compute rows, and yield the positions of each chunk when it is in its place.

        Raises:
            ValueError: a chunk, or the number of rows, is not what was asked for.
        """
        done = 0
        for chunk in compute(missing) if len(missing) else ():
            positions = missing[done : done + len(chunk)]
            if chunk.shape != (len(positions), *self._rows.shape[1:]) or chunk.dtype != self._rows.dtype:
                raise ValueError(
                    f"compute yielded {chunk.dtype} {tuple(chunk.shape)} where {len(missing) - done} rows were missing"
                )
            self._rows[torch.from_numpy(positions)] = chunk
            self.have[positions] = True
            done += len(positions)
            yield positions
        if done != len(missing):
            raise ValueError(f"compute yielded {done} of {len(missing)} rows")

    def repeat(self) -> None:
        """Copy rows to the other positions of their digests."""
        for position, digest in enumerate(self.digests):
            if (first := self.place[digest]) != position:
                self.row(position)[:] = self.row(first)
