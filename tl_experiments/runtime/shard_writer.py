"""Rows on their way to the disk: gathered into shards, until one cannot be written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tl_experiments.runtime.cache_entries import touch
from tl_experiments.runtime.row_table import RowTable
from tl_experiments.runtime.shard import write_shard

SHARD_ROWS, SHARD_BYTES = 1024, 256_000_000  # at most; what a killed process loses
ATTEMPTS = 3  # at a shard whose folder another process takes away


class ShardWriter:
    """Publishes rows of a table in an entry's folder."""

    def __init__(
        self,
        entry: Path,
        identity: bytes,
        table: RowTable,
        *,
        notice: Callable[[str], None],
    ) -> None:
        """Prepare to write; nothing is written yet.

        Args:
            entry: its folder, which is made when it is needed.
            identity: what the entry's key was made from.
            table: of the rows.
            notice: is told that rows cannot be written, and may raise; from then on none are.
        """
        self._entry, self._identity, self._table = entry, identity, table
        self._notice = notice
        self._size = max(1, min(SHARD_ROWS, SHARD_BYTES // table.row_bytes))
        self._waiting = np.empty(0, dtype=np.int64)
        self._broken = False

    def add(self, positions: np.ndarray) -> None:
        """Take rows that are in their places; publish full shards."""
        self._waiting = np.concatenate([self._waiting, positions])
        while len(self._waiting) >= self._size:
            self._publish(self._size)

    def flush(self) -> None:
        """Publish what is left."""
        if len(self._waiting):
            self._publish(len(self._waiting))

    def _publish(self, count: int) -> None:
        positions, self._waiting = self._waiting[:count], self._waiting[count:]
        if self._broken:
            return
        try:
            self._write(positions)
        except OSError as error:
            self._broken = True
            self._notice(f"cache: {self._entry.parent} cannot be written ({error.strerror or error})")

    def _write(self, positions: np.ndarray) -> None:
        digests = [self._table.digests[int(position)] for position in positions]
        for attempt in range(ATTEMPTS):
            try:
                self._entry.mkdir(parents=True, exist_ok=True)
                touch(self._entry, self._identity)
                rows = (self._table.row(position) for position in positions)
                write_shard(self._entry, rows, digests, row_bytes=self._table.row_bytes)
                return
            except FileNotFoundError:  # another process has removed the entry meanwhile
                if attempt == ATTEMPTS - 1:
                    raise
