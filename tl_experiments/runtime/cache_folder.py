"""Caches on disk: where they live, what they hold, whether it is sound, and what goes when they grow too large.

    <folder>/<kind>/<key>/key.json      what the key is the sha256 of; touched whenever the entry is used
                          <name>.rows   payload of a shard: rows, one after the other
                          <name>.json   its manifest, written last; <name> is the sha256 of the manifest's bytes
    <folder>/<kind>/<key>.lock          held while rows of the entry are computed, or while it is removed

Readers take no lock: whatever they find is checked row by row. Nothing heavy is imported.
"""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.fingerprint import fingerprint

FOLDER, LIMIT = "TL_CACHE_DIR", "TL_CACHE_LIMIT_GB"
DEFAULT_LIMIT_GB = 20.0
GB = 10**9
KINDS = ("features", "images")
KEY_FILE = "key.json"
ABANDONED_SECONDS = 3600.0  # nobody takes that long to write a shard
SCRATCH_BYTES = 4_000_000  # read at once


def cache_folder() -> Path:
    """Return where caches live: TL_CACHE_DIR, else the user's cache folder; it need not exist."""
    chosen = os.environ.get(FOLDER)
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("tl_experiments", appauthor=False)
    return folder.absolute()


def cache_limit() -> float:
    """Return how many bytes all caches together may take.

    Raises:
        SettingError: TL_CACHE_LIMIT_GB is not a number of gigabytes.
    """
    chosen = os.environ.get(LIMIT)
    try:
        return parse_gigabytes(chosen) if chosen else DEFAULT_LIMIT_GB * GB
    except ValueError as error:
        raise SettingError(f"{LIMIT}={chosen}: {error}") from None


def parse_gigabytes(text: str) -> float:
    """Turn a number of gigabytes into bytes.

    Raises:
        ValueError: it is not a number, or not one of 0 or more.
    """
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise ValueError("expected a number of gigabytes, 0 or more, such as 20 or 0.5")
    return gigabytes * GB


class DamageError(Exception):
    """A shard is not as it was written; the message goes on from `shard ...: `."""


@dataclass(frozen=True)
class Shard:
    """Some rows of an entry, as its manifest describes them.

    Attributes:
        manifest: its path; the payload lies beside it.
        row_bytes: size of one row.
        digests: of what the rows were computed from, in the order of the payload.
        sha256: of the bytes of every row.
    """

    manifest: Path
    row_bytes: int
    digests: tuple[str, ...]
    sha256: tuple[str, ...]

    @classmethod
    def load(cls, manifest: Path) -> "Shard":
        """Read a manifest.

        Raises:
            DamageError: it is not what was written, or belongs to another entry.
            FileNotFoundError: somebody has removed it.
        """
        try:
            text = manifest.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamageError(f"its manifest cannot be read ({error.strerror})") from None
        if hashlib.sha256(text).hexdigest() != manifest.stem:
            raise DamageError("its manifest does not match its checksum")
        try:
            body = json.loads(text)
            shard = cls(manifest, int(body["row_bytes"]), tuple(body["digests"]), tuple(body["sha256"]))
            key = body["key"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DamageError("its manifest is not one of a shard") from None
        if key != manifest.parent.name or len(shard.digests) != len(shard.sha256) or shard.row_bytes < 1:
            raise DamageError("its manifest belongs to something else")
        return shard

    @property
    def payload(self) -> Path:
        return self.manifest.with_suffix(".rows")

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview | None]]:
        """Yield the wanted rows, or None for a row whose bytes are not those that were written.

        Args:
            wanted: indices of rows, ascending.

        Yields:
            the index and its row, which is good until the next one is asked for.
        """
        try:
            file = self.payload.open("rb", buffering=0)
        except OSError:
            yield from ((index, None) for index in wanted)
            return
        scratch = memoryview(bytearray(max(SCRATCH_BYTES, self.row_bytes)))
        with file:
            for first, count in _runs(wanted, longest=len(scratch) // self.row_bytes):
                _read_at(file, first * self.row_bytes, scratch[: count * self.row_bytes])
                for index in range(count):
                    row = scratch[index * self.row_bytes : (index + 1) * self.row_bytes]
                    good = hashlib.sha256(row).hexdigest() == self.sha256[first + index]
                    yield first + index, row if good else None

    def fault(self, bad: int) -> str | None:
        """Say what is wrong with the payload when `bad` rows of it were; None: nothing."""
        expected = len(self.digests) * self.row_bytes
        try:
            size = self.payload.stat().st_size
        except OSError:
            return "its payload is missing"
        if size != expected:
            return f"its payload has {size} bytes instead of {expected}"
        return f"{bad} of its {len(self.digests)} rows do not match their checksum" if bad else None


def _runs(indices: Sequence[int], *, longest: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of neighbours in ascending indices."""
    start = 0
    for end in range(1, len(indices) + 1):
        if end == len(indices) or indices[end] != indices[end - 1] + 1 or end - start == longest:
            yield indices[start], end - start
            start = end


def _read_at(file: Any, offset: int, buffer: memoryview) -> None:
    """Fill the buffer as far as the file goes and can be read; checksums tell the rest."""
    with suppress(OSError):
        file.seek(offset)
        while len(buffer) and (count := file.readinto(buffer)):
            buffer = buffer[count:]


@dataclass(frozen=True)
class CacheEntry:
    """All rows of one key.

    Attributes:
        fields: what its owner named; empty where key.json cannot be read.
        rows: how many there are, as far as the sizes of the payloads tell.
        bytes: of all its files.
        last_used: seconds since the epoch.
    """

    path: Path
    fields: dict[str, Any]
    rows: int
    bytes: int
    last_used: float

    @property
    def kind(self) -> str:
        return self.path.parent.name

    @property
    def key(self) -> str:
        return self.path.name


def entries(folder: Path) -> list[CacheEntry]:
    """Return what the caches hold, least recently used first; what looks like no entry is left out."""
    found = [_look(path) for path in _entry_paths(folder)]
    return sorted((entry for entry in found if entry), key=lambda entry: (entry.last_used, entry.key))


def _entry_paths(folder: Path) -> Iterator[Path]:
    for kind in KINDS:
        for path in _listed(folder / kind):
            if re.fullmatch("[0-9a-f]{64}", path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _listed(folder: Path) -> list[Path]:
    """Return the paths in a folder, sorted; none where it is gone or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _look(path: Path) -> CacheEntry | None:
    sizes, times = {}, {}
    for file in _listed(path):
        with suppress(OSError):
            status = file.stat()
            sizes[file.name], times[file.name] = status.st_size, status.st_mtime
    try:
        last_used = times.get(KEY_FILE) or max(times.values(), default=path.stat().st_mtime)
    except OSError:
        return None  # somebody has removed it
    identity = _identity(path) or {}
    payloads = sum(sizes.get(f"{name.removesuffix('.json')}.rows", 0) for name in sizes if name.endswith(".json"))
    rows = payloads // identity["row_bytes"] if identity else 0
    return CacheEntry(path, identity.get("fields", {}), rows, sum(sizes.values()), last_used)


def _identity(path: Path) -> dict[str, Any] | None:
    """Return what an entry's key was made from, None where it does not say so any more."""
    try:
        identity = json.loads((path / KEY_FILE).read_bytes())
        fields, row_bytes = identity["fields"], identity["row_bytes"]
        sound = fingerprint(identity) == path.name and isinstance(fields, dict) and int(row_bytes) >= 1
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return identity if sound else None


def manifests(entry: Path) -> list[Path]:
    """Return the paths of the manifests of an entry, in a fixed order."""
    return [path for path in _listed(entry) if path.suffix == ".json" and not _hidden(path) and path.name != KEY_FILE]


def leftovers(entry: Path) -> list[Path]:
    """Return what writers that died have left in an entry, or are just writing: no manifest leads to it."""
    present = _listed(entry)
    names = {path.name for path in present}
    return [path for path in present if _hidden(path) or (path.suffix == ".rows" and f"{path.stem}.json" not in names)]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


@dataclass(frozen=True)
class Damage:
    """Something in a cache that is not as it was written, and what is wrong with it."""

    path: Path
    fault: str


def verify(folder: Path) -> Iterator[Damage]:
    """Read everything and yield what is damaged; entries that are removed meanwhile are no damage."""
    for path in _entry_paths(folder):
        found = list(_verify_entry(path))
        if path.exists():
            yield from found


def _verify_entry(path: Path) -> Iterator[Damage]:
    if manifests(path) and _identity(path) is None:
        yield Damage(path / KEY_FILE, "it does not say what the entry was made from")
    for orphan in leftovers(path):
        if not _hidden(orphan) and orphan.exists() and not orphan.with_suffix(".json").exists():
            yield Damage(orphan, "its manifest is missing")
    for manifest in manifests(path):
        try:
            shard = Shard.load(manifest)
        except FileNotFoundError:
            continue
        except DamageError as damage:
            yield Damage(manifest, str(damage))
            continue
        fault = shard.fault(sum(row is None for _, row in shard.read(range(len(shard.digests)))))
        if fault and manifest.exists():
            yield Damage(manifest, fault)


def entry_lock(entry: Path) -> FileLock:
    """Return the lock of an entry, not taken; its folder must be there when it is."""
    return FileLock(entry.with_name(f"{entry.name}.lock"))


@contextmanager
def _lock_at_once(entry: Path) -> Iterator[bool | None]:
    """Yield True with the lock, False where another process has it, None where locks do not work."""
    lock = entry_lock(entry)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):
        yield None
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            lock.release()


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
    """Remove what writers that died have left, then entries as `make_room` does."""
    swept = sum(_sweep(path) for path in _entry_paths(folder)) + _empty_trash(folder)
    room = make_room(folder, limit=limit)
    return Pruned(room.removed, room.kept, swept)


def make_room(folder: Path, *, limit: float, keep: Path | None = None) -> Pruned:
    """Remove entries, least recently used first, until the caches take no more than `limit` bytes.

    Args:
        limit: -inf removes all of them.
        keep: an entry that stays in any case; so does one that another process is filling.
    """
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
    return Pruned(tuple(removed), tuple(kept))


def _remove(entry: Path) -> bool:
    """Take an entry away in one motion, so that a reader finds all of it or nothing."""
    with _lock_at_once(entry) as locked:
        if locked is False:
            return False
        trash = entry.with_name(f".trash-{secrets.token_hex(8)}")
        try:
            entry.rename(trash)
        except OSError:
            return not entry.exists()
        shutil.rmtree(trash, ignore_errors=True)
        with suppress(OSError):
            entry.with_name(f"{entry.name}.lock").unlink()
    return True


def _sweep(entry: Path) -> int:
    """Remove what dead writers left in an entry, and return its bytes; without its lock, only what is old."""
    freed = 0
    with _lock_at_once(entry) as locked:
        latest = math.inf if locked else time.time() - ABANDONED_SECONDS
        for path in leftovers(entry):
            with suppress(OSError):
                status = path.stat()
                if status.st_mtime <= latest:
                    path.unlink()
                    freed += status.st_size
    return freed


def _empty_trash(folder: Path) -> int:
    """Finish what a process that died was removing, and return its bytes."""
    freed = 0
    for trash in (path for kind in KINDS for path in _listed(folder / kind) if path.name.startswith(".trash-")):
        entry = _look(trash)
        freed += entry.bytes if entry else 0
        shutil.rmtree(trash, ignore_errors=True)
    return freed
