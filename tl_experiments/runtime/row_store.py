"""Rows that are computed once: a content-addressed store on disk, filled while rows are computed.

What a row is computed by and from decides its key and its place; names and times of files do not count. Every row is
checked whenever it is read. The store is a convenience: where it cannot be read or written, rows are computed, and the
result is the same.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_experiments.runtime.cache_entries import KINDS, manifests, touch
from tl_experiments.runtime.cache_folder import GB, LIMIT, cache_folder, cache_limit
from tl_experiments.runtime.cache_lock import locked
from tl_experiments.runtime.cache_pruning import dead_leftovers, make_room
from tl_experiments.runtime.files import DamageError, unfinished
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.runtime.row_table import ComputeRows, RowTable
from tl_experiments.runtime.shard import Shard
from tl_experiments.runtime.shard_writer import ShardWriter
from tl_experiments.runtime.share import WHOLE, Share

FORMAT = 1
NOTE_BYTES = 135  # of a row in its manifest: two digests, quoted


def once(notice: Callable[[str], None]) -> Callable[[str], None]:
    """Make a callback that passes each line on the first time alone."""
    told = set[str]()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            notice(line)

    return tell


class RowStore:
    """Rows of one kind, computed in one way.

    The cache's folder and limit are those of the environment when the store is made.

    Attributes:
        key: of all that determines a row besides the image.
        folder: of the rows; it need not exist.
    """

    def __init__(
        self,
        *,
        kind: str,
        fields: Mapping[str, Any],
        row_shape: tuple[int, ...],
        dtype: torch.dtype,
        notice: Callable[[str], None],
        share: Share = WHOLE,
        unkept: Callable[[str], None] | None = None,
    ) -> None:
        """Name what the rows are.

        Args:
            kind: features, images or checks.
            fields: plain JSON values; all that determines a row besides the image.
            row_shape: of one row.
            dtype: of one row.
            notice: is told in one line what a user should know; never twice the same.
            share: of the rows that all workers want together, which this one fills: it waits for no other share.
            unkept: is told in one line why rows cannot be kept, and may raise; by default `notice` is.

        Raises:
            SettingError: TL_CACHE_DIR or TL_CACHE_LIMIT_GB makes no sense.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind}: expected one of {', '.join(KINDS)}")
        self._kind, self._shape, self._dtype = kind, tuple(row_shape), dtype
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
        self._share = share
        self._tell = once(notice)
        self._unkept = unkept or self._tell
        self._unwritable = unkept or self._tell_unwritable

    def fill(self, rows: torch.Tensor, digests: Sequence[str], compute: ComputeRows) -> int:
        """Write every row into its place: from disk where it is there, else computed, and then stored.

        Args:
            rows: (N, *row_shape), contiguous, on the CPU.
            digests: N, of the images; equal ones have equal rows, and are computed once.
            compute: is given the positions (M,) int64 of missing rows, ascending, and yields their rows in this order,
                in chunks (any, *row_shape) on the CPU. It is not called when nothing is missing.

        Returns:
            How many rows were computed.

        Raises:
            ValueError: `rows`, or a chunk of `compute`, is not as described.
        """
        wanted = (len(digests), *self._shape)
        if rows.shape != wanted or rows.dtype != self._dtype:
            raise ValueError(f"rows are {rows.dtype} {tuple(rows.shape)}, not {self._dtype} {wanted}")
        if rows.device.type != "cpu" or not rows.is_contiguous():
            raise ValueError("rows must be contiguous and on the CPU")
        if not digests:
            return 0
        table = RowTable(rows, digests)
        with suppress(OSError):
            if self.folder.is_dir():
                touch(self.folder, self._identity)
        self._read(table)
        num_computed = 0
        if len(table.missing()):
            with locked(self.folder, share=self._share, waiting=self._tell_waiting) as ours:
                num_computed = self._complete(table, compute, ours=bool(ours) and self._share == WHOLE)
        table.repeat()
        return num_computed

    def _read(self, table: RowTable) -> "_Found":
        """Read missing rows into the table."""
        found = _Found(np.zeros(len(table.have), dtype=bool), {}, [])
        for manifest in manifests(self.folder):
            try:
                shard = Shard.load(manifest)
                if shard.row_bytes != self._row_bytes:
                    raise DamageError("its rows have another size")
                places = [table.place.get(digest, -1) for digest in shard.digests]
                _read_shard(shard, places, table)
            except FileNotFoundError:  # somebody has removed it
                continue
            except OSError as error:
                found.unread.append(error)
                continue
            except DamageError as damage:
                found.faults[manifest] = str(damage)
                continue
            found.stored[[place for place in places if place >= 0]] = True
        return found

    def _complete(self, table: RowTable, compute: ComputeRows, *, ours: bool) -> int:
        """Look again, now that nobody else writes the same; remove what is damaged, compute what is missing, store it.

        Returns:
            How many rows were computed.
        """
        with suppress(OSError), unfinished(self.folder):
            pass  # a network file system may list a folder as it was a minute ago, until one writes there
        found = self._read(table)
        self._tell_unread(found.unread)
        self._discard(found.faults, dead_leftovers(self.folder, ours=ours))
        missing = table.missing()
        unsaved = table.firsts[~found.stored[table.firsts]]
        if not len(unsaved):
            return 0
        if not self._make_room_for(len(unsaved)):
            for _ in table.take(missing, compute):
                pass
            return len(missing)
        writer = ShardWriter(self.folder, self._identity, table, notice=self._unwritable)
        try:
            writer.add(np.setdiff1d(unsaved, missing))
            writer.flush()
            for positions in table.take(missing, compute):
                writer.add(positions)
        finally:
            writer.flush()
            make_room(self._root, limit=self._limit, keep=self.folder)  # others have written too
        return len(missing)

    def _discard(self, faults: Mapping[Path, str], unfinished: Sequence[Path]) -> None:
        """Remove damaged shards and what dead writers left; say which rows are lost."""
        orphans = {path: "its manifest is missing" for path in unfinished if path.suffix == ".rows"}
        for path, fault in {**faults, **orphans}.items():
            shard = f"shard {path.stem[:12]} of {self._kind} {self.key[:12]}"
            self._tell(f"cache: {shard}: {fault}; what it held is computed again")
        for path in (*faults, *(manifest.with_suffix(".rows") for manifest in faults), *unfinished):
            with suppress(OSError):
                path.unlink()

    def _make_room_for(self, num_rows: int) -> bool:
        """Remove other entries before rows are written; False where the entry alone takes more than all may."""
        present, coming = 0, num_rows * (self._row_bytes + NOTE_BYTES)
        with suppress(OSError):
            present = sum(path.stat().st_size for path in self.folder.iterdir())
        if not self._fits(num_rows, present + coming):
            return False
        make_room(self._root, limit=self._limit - coming, keep=self.folder)
        return True

    def expect(self, digests: np.ndarray) -> None:
        """Say, before any of them is filled, that the rows of so many images cannot all be kept, where that is so.

        Args:
            digests: of the images, uint8 (N, 32).
        """
        num_rows = len(np.unique(np.ascontiguousarray(digests).view("S32")))
        self._fits(num_rows, num_rows * (self._row_bytes + NOTE_BYTES))

    def _fits(self, num_rows: int, needed: int) -> bool:
        if needed <= self._limit:
            return True
        self._unkept(
            f"cache: {num_rows} {self._kind} are not kept: with them the entry takes "
            f"{needed / GB:.3g} GB, and all caches may take {self._limit / GB:.3g} GB; raise {LIMIT} to keep them"
        )
        return False

    def _tell_unread(self, errors: Sequence[OSError]) -> None:
        if errors:
            shards = f"{len(errors)} shard{'s' * (len(errors) > 1)} of {self._kind} {self.key[:12]}"
            reason = errors[0].strerror or errors[0]
            self._tell(f"cache: {shards} cannot be read ({reason}); what is missing is computed")

    def _tell_unwritable(self, fault: str) -> None:
        self._tell(f"{fault}; going on without it, the results are the same")

    def _tell_waiting(self) -> None:
        self._tell(f"cache: waiting for another process that computes the same {self._kind}")


@dataclass(frozen=True)
class _Found:
    """What reading has found besides rows.

    Attributes:
        stored: (N,) bool, which positions are in a sound shard.
        faults: what is wrong with damaged shards, by their manifests.
        unread: why other shards cannot be read now; what these hold may be sound.
    """

    stored: np.ndarray
    faults: dict[Path, str]
    unread: list[OSError]


def _read_shard(shard: Shard, places: Sequence[int], table: RowTable) -> None:
    """Read the rows that a table misses.

    Args:
        places: of the shard's rows in the table; -1 where it does not want them.

    Raises:
        DamageError: some of them are not as they were written.
        OSError: they cannot be read now.
    """
    bad = 0
    for index, row in shard.read([i for i, place in enumerate(places) if place >= 0 and not table.have[place]]):
        if row is None:
            bad += 1
        else:
            table.put(places[index], row)
    if bad:
        raise DamageError(shard.fault(bad) or "")
