"""Files and folders that are whole or not there: written beside their place, forced to the disk, and moved into it.

Without the two `fsync`s, of what is moved and of the folder that it is moved into, a power cut takes back what was
reported as saved, or leaves a file of the right name and the wrong content. Nothing heavy is imported.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tl_experiments.runtime.exchange import exchanged

SIDE_BY_SIDE = 16
MANIFEST = "manifest.json"
READ_BYTES = 1_000_000  # at once, to digest a file
MOST_MANIFEST_BYTES = 1_000_000


class DamageError(Exception):
    """What is on the disk is not what was written; the message goes on from the path."""


def publish_text(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a later run after a crash, never sees half of it.

    Raises:
        OSError: it could not be written; the old file is as it was, or the new one is there whole, and nothing else is.
    """
    with unfinished(path.parent) as file:
        file.write(text.encode())
        publish(file, path)


@contextmanager
def unfinished(folder: Path) -> Iterator[BinaryIO]:
    """Open a file that is gone afterwards unless it was published."""
    path = folder / _hidden_name()
    try:
        with path.open("xb") as file:
            yield file
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def publish(file: BinaryIO, path: Path) -> None:
    """Give a file its name when all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, path)  # noqa: PTH105 - the file knows its name as a string
    sync_folder(path.parent)


@contextmanager
def published_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into, which becomes `path` when the block ends well: with a manifest, all at once.

    A folder that is there already changes places with it, and then goes. Only where the file system cannot exchange
    two folders is there, for an instant, none of that name.

    Raises:
        OSError: it could not be written; what was there is as it was, or the new one is there whole, and nothing else.
    """
    make_folder(path.parent)
    making = path.parent / _hidden_name()
    making.mkdir()
    try:
        yield making
        _finish(making)
        _put(making, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _finish(folder: Path) -> None:
    """Force every file to the disk, then write what they must be."""
    files = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            files[file.name] = {"bytes": os.fstat(opened.fileno()).st_size, "sha256": _sha256(opened)}
    with (folder / MANIFEST).open("xb") as manifest:
        manifest.write(json.dumps({"files": files}, separators=(",", ":")).encode())
        manifest.flush()
        os.fsync(manifest.fileno())
    sync_folder(folder)


def _put(making: Path, path: Path) -> None:
    """Give a finished folder its name; what had it until then is afterwards where the folder was made."""
    if not path.exists():
        os.replace(making, path)  # noqa: PTH105 - as a file is moved above
    elif not exchanged(making, path):
        aside = path.parent / _hidden_name()
        os.replace(path, aside)  # noqa: PTH105
        try:
            os.replace(making, path)  # noqa: PTH105
        except OSError:
            os.replace(aside, path)  # noqa: PTH105
            raise
        os.replace(aside, making)  # noqa: PTH105


def remove_folder(path: Path) -> None:
    """Take a published folder away in one motion, so that a reader finds all of it or nothing."""
    aside = path.parent / _hidden_name()
    with suppress(FileNotFoundError):
        os.replace(path, aside)  # noqa: PTH105
    shutil.rmtree(aside, ignore_errors=True)


def verify_folder(folder: Path) -> None:
    """See that a published folder holds what was written, all of it and nothing else.

    Raises:
        DamageError: it does not.
        OSError: it cannot be read now, which says nothing of what it holds.
    """
    expected = _read_manifest(folder)
    found = {path.name for path in folder.iterdir()} - {MANIFEST}
    if found != expected.keys():
        names = ", ".join(sorted(found ^ expected.keys()))
        raise DamageError(f"its files are not those of its manifest: {names}")
    for name, facts in expected.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise DamageError(f"{name} is no file")
        if path.stat().st_size != facts.get("bytes"):
            raise DamageError(f"{name} has {path.stat().st_size} bytes instead of {facts.get('bytes')}")
        with path.open("rb") as file:
            if _sha256(file) != facts.get("sha256"):
                raise DamageError(f"{name} does not match its checksum")


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():  # what is no file may keep a reader waiting
        raise DamageError(f"it has no {MANIFEST}, so it was never finished, or is damaged")
    try:
        with path.open("rb") as file:
            files = json.loads(file.read(MOST_MANIFEST_BYTES))["files"]
        sound = all(Path(name).name == name and isinstance(facts, dict) for name, facts in files.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamageError(f"its {MANIFEST} is not one of a folder, so it is damaged") from None
    if not sound:
        raise DamageError(f"its {MANIFEST} leads elsewhere")
    return files


def append_lines(path: Path, text: str) -> None:
    """Add whole lines to a file, and force them to the disk; half a line, left by a writer that died, is ended first.

    Raises:
        OSError: they could not be written; some of them may be there, the last of these perhaps by half.
    """
    with path.open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read() != b"\n":
                text = f"\n{text}"
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)  # whoever made the file may have died before it did so


def sync_files(paths: Iterable[Path]) -> None:
    """Force the contents of files to the disk, those that are there; side by side, as one motion of it serves many."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        list(threads.map(_sync_file, paths))


def _sync_file(path: Path) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and force their names to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that died have left in a folder; the caller knows that no other process writes there."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(_PREFIX):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_fault(error: OSError) -> str:
    """Say what the disk refused: `ENOSPC: No space left on device (/data/runs)`."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    where = f" ({error.filename})" if error.filename else ""
    return f"{name}: {error.strerror or error}{where}"


_PREFIX = ".unfinished-"


def _hidden_name() -> str:
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
