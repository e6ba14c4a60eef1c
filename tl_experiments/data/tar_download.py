"""Tar files on the net, fetched whole into the caches when they are needed: by http or https, and by no command."""

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from tl_experiments.data.image_files import printable
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.runtime.cached_file import cached_file
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.files import disk_fault
from tl_experiments.runtime.typed_path import is_url

TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK = 2**20
_SHARD = "shard.tar"


def local_path(place: str, *, file: str = _SHARD) -> Path:
    """Return where the bytes of a path or of a URL are on this machine, having fetched them if they were not.

    Args:
        place: a path, or a URL of http or https.
        file: how a URL's bytes are called in the caches.

    Raises:
        DataError: it cannot be fetched or kept.
    """
    if not is_url(place):
        return Path(place)
    try:
        return cached_file(
            kind="shards",
            name=file,
            fields={"shard": place},
            make=lambda kept: _fetch(place, kept),
            notice=UNWATCHED.notice,
        )
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be kept in the caches ({disk_fault(error)})") from error


def _fetch(url: str, file: BinaryIO) -> None:
    """Write what is at a URL.

    Raises:
        DataError: it is not there, or not all of it comes.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            expected, read = answer.headers.get("Content-Length"), 0
            while chunk := answer.read(_CHUNK):
                read += file.write(chunk)
    except urllib.error.HTTPError as error:
        raise DataError(f"{printable(url)}: cannot be fetched (HTTP {error.code} {printable(error.reason)})") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{printable(url)}: cannot be fetched ({printable(str(reason))})") from error
    if expected is not None and read != int(expected):
        raise DataError(f"{printable(url)}: came by half ({read:,} of {int(expected):,} bytes); start again")
