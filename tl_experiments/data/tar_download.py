"""Tar files on the net and their index, fetched whole into the caches."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tl_experiments.data.image_files import printable
from tl_experiments.data.tar_fetch import fetch
from tl_experiments.data.tar_index import INDEX, TarIndex
from tl_experiments.data.watch import UNWATCHED, Watch
from tl_experiments.runtime.cache_folder import cache_folder
from tl_experiments.runtime.cached_file import cached_file, forget_file
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.files import disk_fault, make_folder
from tl_experiments.runtime.typed_path import is_url

_SHARD = "shard.tar"


def open_shard(place: str, *, size: int | None = None, pack: str | None = None) -> int:
    """Open a tar file to be read, having fetched it if it is at a URL and the caches do not have it.

    Args:
        place: a path, or a URL of http or https.
        size: of what is at the URL, in bytes, as an index says; None where none does yet.
        pack: sha256 of the index beside it on the net: another pack at the same URL is another file in the caches.

    Returns:
        A descriptor, for the caller to close.

    Raises:
        DataError: it cannot be fetched or kept, or is of another size.
        OSError: a path cannot be read.
    """
    if not is_url(place):
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(FileNotFoundError):  # another process may have made room in the caches just now
        return _opened(_kept(place, size=size, pack=pack), place, size)
    return _opened(_kept(place, size=size, pack=pack), place, size)


def forget_shard(place: str) -> None:
    """Have what is at a URL fetched again when it is wanted again, as it was no tar file; a path stays as it is."""
    if is_url(place):
        forget_file(kind="shards", name=_SHARD, fields={"shard": place})


def fetched_index(url: str, *, watch: Watch) -> tuple[TarIndex, str]:
    """Fetch an index, always anew, as another may be there by now.

    Returns:
        It, and the sha256 of its bytes in hexadecimal.

    Raises:
        DataError: it cannot be fetched or kept, or is no index.
    """
    try:
        make_folder(cache_folder())
        with tempfile.TemporaryFile(dir=cache_folder()) as fetched:
            fetch(url, fetched, advance=watch.work(f"fetching {printable(url)}"))
            fetched.seek(0)
            digest = hashlib.file_digest(fetched, "sha256").hexdigest()

            def copy(file: BinaryIO) -> None:
                fetched.seek(0)
                shutil.copyfileobj(fetched, file)

            fields = {"shard": url, "sha256": digest}
            index = cached_index(
                lambda: cached_file(kind="indexes", name=INDEX, fields=fields, make=copy, notice=watch.notice)
            )
    except OSError as error:
        raise DataError(f"{printable(url)}: cannot be kept in the caches ({disk_fault(error)})") from error
    return index, digest


def cached_index(find: Callable[[], Path]) -> TarIndex:
    """Read an index from the caches, and find it again where another process has made room there just now.

    Raises:
        DataError: it is no index.
    """
    path = find()
    try:
        return TarIndex(path)
    except DataError:
        if path.exists():
            raise
    return TarIndex(find())


def _opened(path: Path, place: str, size: int | None) -> int:
    """Open what the caches keep, which may be older than the index."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if size is not None and (found := os.fstat(descriptor).st_size) != size:
        os.close(descriptor)
        raise DataError(
            f"{printable(place)}: has {found:,} bytes in the caches, and its index says {size:,}; "
            "empty the caches (tlx cache prune --all) and start again"
        )
    return descriptor


def _kept(place: str, *, size: int | None, pack: str | None) -> Path:
    """Return where the caches keep what is at a URL."""
    fields = {"shard": place} if pack is None else {"shard": place, "pack": pack}
    advance = UNWATCHED.work(f"fetching {place}")
    try:
        return cached_file(
            kind="shards",
            name=_SHARD,
            fields=fields,
            make=lambda kept: fetch(place, kept, size=size, advance=advance),
            notice=UNWATCHED.notice,
        )
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be kept in the caches ({disk_fault(error)})") from error
