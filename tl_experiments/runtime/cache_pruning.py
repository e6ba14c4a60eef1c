"""What goes when caches grow too large: entries that were used least recently. Nothing heavy is imported."""

import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.runtime.cache_entries import (
    KINDS,
    CacheEntry,
    entries,
    entry_paths,
    gone,
    is_abandoned,
    leftovers,
    listed,
    look,
)
from tl_experiments.runtime.cache_lock import locked, shared_out


@dataclass(frozen=True)
class Pruned:
    """What went, and what should have gone but is in use or cannot be removed; leftovers are those of dead writers."""

    removed: tuple[CacheEntry, ...]
    kept: tuple[CacheEntry, ...]
    leftover_bytes: int = 0

    @property
    def freed(self) -> int:
        return self.leftover_bytes + sum(entry.bytes for entry in self.removed)


def prune(folder: Path, *, limit: float) -> Pruned:
    """Remove what writers that died have left, then what `make_room` does."""
    swept = sum(_sweep(path) for path in entry_paths(folder))
    room = make_room(folder, limit=limit)
    return Pruned(room.removed, room.kept, swept + room.leftover_bytes)


def make_room(folder: Path, *, limit: float, keep: Path | None = None) -> Pruned:
    """Remove what is half removed, and entries, least recently used first, until the caches take at most `limit` bytes.

    Args:
        limit: -inf removes all of them.
        keep: an entry that stays in any case; so does one that another process is filling.
    """
    emptied = _empty_trash(folder)
    removed, kept, present = [], [], entries(folder)
    excess = sum(entry.bytes for entry in present) - limit
    for entry in present:
        if excess <= 0:
            break
        if entry.path == keep:
            continue
        if _remove(entry.path):
            removed.append(entry)
            excess -= entry.bytes
        else:
            kept.append(entry)
    return Pruned(tuple(removed), tuple(kept), emptied)


def _remove(entry: Path) -> bool:
    """Take an entry away in one motion, so that a reader finds all of it or nothing."""
    with locked(entry) as ours:
        if ours is False or shared_out(entry):
            return False
        trash = entry.with_name(f".trash-{secrets.token_hex(8)}")
        try:
            entry.rename(trash)
        except OSError:
            return gone(entry)
        shutil.rmtree(trash, ignore_errors=True)
        with suppress(OSError):
            entry.with_name(f"{entry.name}.lock").unlink()
    return True


def _sweep(entry: Path) -> int:
    """Remove what dead writers left in an entry, and return its bytes; without its lock, only what is old."""
    freed = 0
    with locked(entry) as ours:
        for path in dead_leftovers(entry, ours=bool(ours)):
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                freed += size
    return freed


def dead_leftovers(entry: Path, *, ours: bool) -> list[Path]:
    """Return what dead writers left in an entry, to be removed at once; where others may write, only what is old.

    Args:
        ours: this process has the entry's lock, so that others fill shares of it at most.
    """
    found = leftovers(entry)
    alone = ours and not shared_out(entry)  # asked last: who wrote before and has its lock no more, is done or dead
    return [
        path
        for path in found
        if (alone or is_abandoned(path)) and (path.suffix != ".rows" or gone(path.with_suffix(".json")))
    ]


def _empty_trash(folder: Path) -> int:
    """Finish what a process that died was removing, and return its bytes; one that lives finds its work done."""
    freed = 0
    for trash in (path for kind in KINDS for path in listed(folder / kind) if path.name.startswith(".trash-")):
        entry = look(trash)
        freed += entry.bytes if entry else 0
        shutil.rmtree(trash, ignore_errors=True)
    return freed
