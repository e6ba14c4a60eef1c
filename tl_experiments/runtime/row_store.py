"""Rows that are computed once: a content-addressed store on disk, filled while rows are computed.

What a row is computed by and from decides its key and its place; names and times of files do not count. Every row is
checked whenever it is read. The store is a convenience: where it cannot be read or written, rows are computed, and the
result is the same.
"""

import hashlib
import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import Timeout

from tl_experiments.runtime.cache_folder import (
    GB,
    KEY_FILE,
    KINDS,
    LIMIT,
    DamageError,
    Shard,
    cache_folder,
    cache_limit,
    entry_lock,
    leftovers,
    make_room,
    manifests,
)
from tl_experiments.runtime.fingerprint import fingerprint

FORMAT = 1
SHARD_ROWS, SHARD_BYTES = 1024, 256_000_000  # at most; what a killed process loses
PATIENCE_SECONDS = 1.0  # before a process says what it waits for
ATTEMPTS = 3  # at a shard whose folder another process takes away

Compute = Callable[[np.ndarray], Iterator[torch.Tensor]]


class RowStore:
    """Rows of one kind, computed in one way.

    The cache's folder and limit are those of the environment when the store is made.
    """

    def __init__(
        self,
        *,
        kind: str,
        fields: Mapping[str, Any],
        row_shape: tuple[int, ...],
        dtype: torch.dtype,
        notice: Callable[[str], None],
    ) -> None:
        """Name what the rows are.

        Args:
            kind: features or images.
            fields: plain JSON values; all that determines a row besides the image.
            row_shape: of one row.
            dtype: of one row.
            notice: is told in one line what a user should know; never twice the same.

        Raises:
            SettingError: TL_CACHE_LIMIT_GB is not a number of gigabytes.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind}: expected one of {', '.join(KINDS)}")
        self._shape, self._dtype = tuple(row_shape), dtype
        self._row_bytes = math.prod(row_shape) * dtype.itemsize
        identity = {
            "fields": dict(fields),
            "row_shape": list(row_shape),
            "row_bytes": self._row_bytes,
            "dtype": str(dtype).removeprefix("torch."),
            "byteorder": sys.byteorder,
            "format": FORMAT,
        }
        self.key = fingerprint(identity)
        self._identity = json.dumps(identity, indent=2, sort_keys=True).encode()
        self._root, self._limit = cache_folder(), cache_limit()
        self.folder = self._root / kind / self.key
        self._notice, self._told = notice, set[str]()

    def fill(self, rows: torch.Tensor, digests: Sequence[str], compute: Compute) -> None:
        """Write every row into its place: from disk where it is there, else computed, and then stored.

        Args:
            rows: (N, *row_shape), contiguous, on the CPU.
            digests: N, of the images; equal ones have equal rows, and are computed once.
            compute: is given the positions (M,) int64 of missing rows, ascending, and yields their rows in this order,
                in chunks (any, *row_shape) on the CPU. It is not called when nothing is missing.

        Raises:
            ValueError: `rows`, or a chunk of `compute`, is not as described.
        """
        wanted = (len(digests), *self._shape)
        if rows.shape != wanted or rows.dtype != self._dtype:
            raise ValueError(
                f"rows are {rows.dtype} {tuple(rows.shape)}, not {self._dtype} {len(digests), *self._shape}"
            )
        if rows.device.type != "cpu" or not rows.is_contiguous():
            raise ValueError("rows must be contiguous and on the CPU")
        if not digests:
            return
        table = _Table(rows, digests, self._row_bytes)
        self._touch()
        self._read(table)
        if len(table.missing()):
            with self._locked() as locked:
                self._complete(table, compute, locked=locked)
        table.repeat()

    def _complete(self, table: "_Table", compute: Compute, *, locked: bool) -> None:
        """Look again, now that nobody else writes; remove what is damaged, compute what is missing, and store it."""
        stored, faults = self._read(table)
        for manifest, fault in faults.items():
            self._discard(manifest, fault)
        for path in leftovers(self.folder) if locked else ():
            self._discard_leftover(path)
        missing = table.missing()
        unsaved = table.firsts[~stored[table.firsts]]
        writer = _Writer(self, table, saving=self._has_room_for(len(unsaved)))
        writer.add(np.setdiff1d(unsaved, missing))
        writer.flush()
        try:
            for positions in table.take(missing, compute):
                writer.add(positions)
        finally:
            writer.flush()

    def _read(self, table: "_Table") -> tuple[np.ndarray, dict[Path, str]]:
        """Read missing rows into the table.

        Returns:
            which positions (N,) bool are in a sound shard, and the manifests of damaged shards with their faults.
        """
        stored, faults = np.zeros(len(table.have), dtype=bool), {}
        for manifest in manifests(self.folder):
            try:
                shard = Shard.load(manifest)
                if shard.row_bytes != self._row_bytes:
                    raise DamageError("its rows have another size")
                places = [table.place.get(digest, -1) for digest in shard.digests]
                self._read_shard(shard, places, table)
            except FileNotFoundError:  # somebody has removed it
                continue
            except DamageError as damage:
                faults[manifest] = str(damage)
                continue
            stored[[place for place in places if place >= 0]] = True
        return stored, faults

    def _read_shard(self, shard: Shard, places: list[int], table: "_Table") -> None:
        wanted = [index for index, place in enumerate(places) if place >= 0 and not table.have[place]]
        bad = 0
        for index, row in shard.read(wanted) if wanted else ():
            if row is None:
                bad += 1
            else:
                table.put(places[index], row)
        if bad:
            raise DamageError(shard.fault(bad) or "")

    def _discard(self, manifest: Path, fault: str) -> None:
        self.tell(f"cache: {self._shard(manifest)}: {fault}; what it held is computed again")
        for path in (manifest, manifest.with_suffix(".rows")):
            with suppress(OSError):
                path.unlink()

    def _discard_leftover(self, path: Path) -> None:
        if path.suffix == ".rows":
            self.tell(f"cache: {self._shard(path)}: its manifest is missing; what it held is computed again")
        with suppress(OSError):
            path.unlink()

    def _shard(self, path: Path) -> str:
        return f"shard {path.stem[:12]} of {self.folder.parent.name} {self.key[:12]}"

    def _has_room_for(self, num_rows: int) -> bool:
        present = 0
        with suppress(OSError):
            present = sum(path.stat().st_size for path in self.folder.iterdir())
        needed = present + num_rows * self._row_bytes
        if needed > self._limit:
            self.tell(
                f"cache: {num_rows} {self.folder.parent.name} are not kept: with them the entry takes "
                f"{needed / GB:.3g} GB, and all caches may take {self._limit / GB:.3g} GB; raise {LIMIT} to keep them"
            )
        return needed <= self._limit

    def write(self, rows: Iterator[memoryview], digests: Sequence[str]) -> None:
        """Publish a shard: payload first, manifest last.

        Raises:
            OSError: it could not be written; nothing is left of it but perhaps a payload, which leads nowhere.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep_key()
        with _unfinished(self.folder) as payload:
            hashes = []
            for row in rows:
                hashes.append(hashlib.sha256(row).hexdigest())
                payload.write(row)
            body = {"key": self.key, "row_bytes": self._row_bytes, "digests": list(digests), "sha256": hashes}
            text = json.dumps(body, separators=(",", ":")).encode()
            manifest = self.folder / f"{hashlib.sha256(text).hexdigest()}.json"
            _publish(payload, manifest.with_suffix(".rows"))
        with _unfinished(self.folder) as file:
            file.write(text)
            _publish(file, manifest)

    def make_room(self) -> None:
        """Remove other entries while all of them together are too large."""
        make_room(self._root, limit=self._limit, keep=self.folder)

    def tell(self, line: str) -> None:
        """Say something, once."""
        if line not in self._told:
            self._told.add(line)
            self._notice(line)

    def _touch(self) -> None:
        """Note that the entry is used, if there is one."""
        if self.folder.is_dir():
            with suppress(OSError):
                self._keep_key()

    def _keep_key(self) -> None:
        path = self.folder / KEY_FILE
        with suppress(OSError):
            if path.read_bytes() == self._identity:
                os.utime(path)
                return
        with _unfinished(self.folder) as file:
            file.write(self._identity)
            _publish(file, path)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Keep other processes from computing the same; False where locks do not work, which costs time alone."""
        lock = entry_lock(self.folder)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=PATIENCE_SECONDS)
            except Timeout:
                self.tell(f"cache: waiting for another process that computes the same {self.folder.parent.name}")
                lock.acquire()
        except (OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError):
                lock.release()


class _Table:
    """The rows of one `fill`, as bytes.

    Attributes:
        digests: N.
        place: digest → the first position that has it.
        firsts: (M,) int64, these positions, ascending.
        have: (N,) bool, which of them are filled.
    """

    def __init__(self, rows: torch.Tensor, digests: Sequence[str], row_bytes: int) -> None:
        self._rows, self._row_bytes = rows, row_bytes
        self._bytes = rows.detach().view(-1).view(torch.uint8).numpy().data
        self.digests = digests
        self.place = dict(zip(reversed(digests), range(len(digests) - 1, -1, -1), strict=True))
        self.firsts = np.sort(np.fromiter(self.place.values(), dtype=np.int64, count=len(self.place)))
        self.have = np.zeros(len(digests), dtype=bool)

    def missing(self) -> np.ndarray:
        """Return the positions (any,) int64 whose rows are to be computed, ascending."""
        return self.firsts[~self.have[self.firsts]]

    def row(self, position: int) -> memoryview:
        return self._bytes[position * self._row_bytes : (position + 1) * self._row_bytes]

    def put(self, position: int, row: memoryview) -> None:
        self.row(position)[:] = row
        self.have[position] = True

    def take(self, missing: np.ndarray, compute: Compute) -> Iterator[np.ndarray]:
        """Compute rows, and yield the positions of each chunk when it is in its place."""
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


class _Writer:
    """Publishes rows of a table in shards, until one cannot be written."""

    def __init__(self, store: RowStore, table: _Table, *, saving: bool) -> None:
        self._store, self._table, self._saving = store, table, saving
        self._waiting = np.empty(0, dtype=np.int64)

    def add(self, positions: np.ndarray) -> None:
        """Take rows that are in their places; publish full shards."""
        if not self._saving:
            return
        self._waiting = np.concatenate([self._waiting, positions])
        size = max(1, min(SHARD_ROWS, SHARD_BYTES // len(self._table.row(0))))
        while len(self._waiting) >= size:
            self._publish(self._waiting[:size])
            self._waiting = self._waiting[size:]

    def flush(self) -> None:
        """Publish what is left."""
        if len(self._waiting):
            self._publish(self._waiting)
            self._waiting = self._waiting[:0]

    def _publish(self, positions: np.ndarray) -> None:
        if not self._saving:
            return
        try:
            self._write(positions)
        except OSError as error:
            self._saving = False
            self._store.tell(
                f"cache: {self._store.folder.parent} cannot be written ({error.strerror or error}); "
                "going on without it, the results are the same"
            )
        else:
            self._store.make_room()

    def _write(self, positions: np.ndarray) -> None:
        digests = [self._table.digests[int(position)] for position in positions]
        for attempt in range(ATTEMPTS):
            try:
                self._store.write((self._table.row(position) for position in positions), digests)
                return
            except FileNotFoundError:  # another process has removed the entry meanwhile
                if attempt == ATTEMPTS - 1:
                    raise


@contextmanager
def _unfinished(folder: Path) -> Iterator[BinaryIO]:
    """Open a file that is gone afterwards unless it was published."""
    path = folder / f".{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            yield file
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _publish(file: BinaryIO, path: Path) -> None:
    """Give a file its name when all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)  # noqa: PTH105 - the file knows its name as a string
