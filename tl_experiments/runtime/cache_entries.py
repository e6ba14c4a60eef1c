"""What the caches hold, entry by entry, and whether it is sound. Nothing heavy is imported."""

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.runtime.files import DamageError, publish, unfinished
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.runtime.shard import Shard

KINDS = ("features", "images", "checks", "shards", "indexes")  # the last two hold files, not rows
KEY_FILE = "key.json"
ABANDONED_SECONDS = 3600.0  # nobody takes that long to write a shard


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
    found = [look(path) for path in entry_paths(folder)]
    return sorted((entry for entry in found if entry), key=lambda entry: (entry.last_used, entry.key))


def entry_paths(folder: Path) -> Iterator[Path]:
    """Yield the folders of all entries; links and what others have put there are none."""
    for kind in KINDS:
        for path in listed(folder / kind):
            if re.fullmatch("[0-9a-f]{64}", path.name) and _may_be_folder(path):
                yield path


def _may_be_folder(path: Path) -> bool:
    """Whether it is one, and no link to one; yes where that is hidden, so that `verify` tells of it."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def gone(path: Path) -> bool:
    """Whether somebody has removed a path; what cannot be looked at may be there. `Path.exists` would raise."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def listed(folder: Path) -> list[Path]:
    """Return the paths in a folder, sorted; none where it is gone or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def look(path: Path) -> CacheEntry | None:
    """Return what is in the folder of an entry; None where somebody has removed it."""
    sizes, times = {}, {}
    for file in listed(path):
        with suppress(OSError):
            status = file.stat()
            sizes[file.name], times[file.name] = status.st_size, status.st_mtime
    try:
        last_used = times.get(KEY_FILE) or max(times.values(), default=path.stat().st_mtime)
    except OSError:
        return None
    identity = {}
    with suppress(OSError):
        identity = _identity(path) or {}
    payloads = sum(sizes.get(f"{name.removesuffix('.json')}.rows", 0) for name in sizes if name.endswith(".json"))
    rows = payloads // identity["row_bytes"] if identity else 0
    return CacheEntry(path, identity.get("fields", {}), rows, sum(sizes.values()), last_used)


def _identity(path: Path) -> dict[str, Any] | None:
    """Return what an entry's key was made from, None where it does not say so any more.

    Raises:
        OSError: it may say so, and cannot be read.
    """
    try:
        identity = json.loads((path / KEY_FILE).read_bytes())
        fields, row_bytes = identity["fields"], identity["row_bytes"]
        sound = fingerprint(identity) == path.name and isinstance(fields, dict) and int(row_bytes) >= 1
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return identity if sound else None


def touch(entry: Path, identity: bytes) -> None:
    """Note that an entry is used, and what its key was made from.

    Raises:
        OSError: that is not written there, and cannot be.
    """
    path = entry / KEY_FILE
    with suppress(OSError):
        if path.read_bytes() == identity:
            os.utime(path)
            return
    with unfinished(entry) as file:
        file.write(identity)
        publish(file, path)


def manifests(entry: Path) -> list[Path]:
    """Return the paths of the manifests of an entry, in a fixed order."""
    return [path for path in listed(entry) if path.suffix == ".json" and not _hidden(path) and path.name != KEY_FILE]


def leftovers(entry: Path) -> list[Path]:
    """Return what writers that died have left in an entry, or are just writing: no manifest leads to it."""
    present = listed(entry)
    names = {path.name for path in present}
    return [path for path in present if _hidden(path) or (path.suffix == ".rows" and f"{path.stem}.json" not in names)]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


@dataclass(frozen=True)
class Damage:
    """Something in a cache that is not as it was written or cannot be read, and what is wrong with it."""

    path: Path
    fault: str


def verify(folder: Path) -> Iterator[Damage]:
    """Read everything and yield what is damaged or cannot be read.

    It takes no lock. What others remove meanwhile is no damage, nor what they are just writing.
    """
    for kind in KINDS:
        yield from _unlisted(folder / kind)
    for path in entry_paths(folder):
        found = [*_unlisted(path), *_verify_key(path), *_verify_shards(path)]
        if not gone(path):
            yield from found


def _unlisted(folder: Path) -> Iterator[Damage]:
    """Yield a folder that is there and cannot be listed."""
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Damage(folder, f"it cannot be listed ({error.strerror})")


def _verify_key(entry: Path) -> Iterator[Damage]:
    try:
        if manifests(entry) and _identity(entry) is None:
            yield Damage(entry / KEY_FILE, "it does not say what the entry was made from")
    except OSError as error:
        yield Damage(entry / KEY_FILE, f"it cannot be read ({error.strerror})")


def _verify_shards(entry: Path) -> Iterator[Damage]:
    for orphan in leftovers(entry):
        if not _hidden(orphan) and is_abandoned(orphan) and gone(orphan.with_suffix(".json")):
            yield Damage(orphan, "its manifest is missing")
    for manifest in manifests(entry):
        fault = _fault(manifest)
        if fault and not gone(manifest):
            yield Damage(manifest, fault)


def is_abandoned(path: Path) -> bool:
    """Whether a file is so old that nobody is going to write what belongs to it; no, if it is gone."""
    with suppress(OSError):
        return path.stat().st_mtime <= time.time() - ABANDONED_SECONDS
    return False


def _fault(manifest: Path) -> str | None:
    """Read a whole shard and say what is wrong with it; None: nothing, or somebody has removed it."""
    try:
        shard = Shard.load(manifest)
        return shard.fault(sum(row is None for _, row in shard.read(range(len(shard.digests)))))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except DamageError as damage:
        return str(damage)
