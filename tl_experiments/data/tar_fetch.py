"""Files on the net, by http or https alone, wherever a server may send for them."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import IO, BinaryIO

from tl_experiments.data.image_files import printable
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.typed_path import is_url

TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK = 2**20


def fetch(url: str, file: BinaryIO, *, size: int | None = None, advance: Callable[[int, int], None]) -> None:
    """Write what is at a URL.

    Args:
        url: of http or https.
        file: open.
        size: in bytes, as an index says; None where none does.
        advance: told of the bytes that came, and of how many are to come.

    Raises:
        DataError: it is not there, or not all of it comes, or it is of another size.
        OSError: the file cannot be written.
    """
    read = 0
    for chunk, total in _chunks(url, size):
        read += file.write(chunk)
        advance(read, max(total or 0, read + 1))
        if size is not None and read > size:
            break
    advance(max(read, 1), max(read, 1))
    _require_size(url, read, size)


def _chunks(url: str, size: int | None) -> Iterator[tuple[bytes, int | None]]:
    """Yield what comes, and how many bytes the server promises."""
    try:
        with _OPENER.open(url, timeout=TIMEOUT_SECONDS) as answer:
            promised, read = _promised(answer.headers, url), 0
            if promised is not None:
                _require_size(url, promised, size)
            while chunk := answer.read(_CHUNK):
                read += len(chunk)
                yield chunk, promised
    except urllib.error.HTTPError as error:
        reason = printable(f"HTTP {error.code} {error.reason}".rstrip())
        raise DataError(f"{printable(url)}: cannot be fetched ({reason})") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{printable(url)}: cannot be fetched ({printable(str(reason)) or type(reason).__name__})"
        ) from error
    if promised is not None and read != promised:
        raise DataError(f"{printable(url)}: came by half ({read:,} of {promised:,} bytes); start again")


def _promised(headers: Message, url: str) -> int | None:
    told = headers.get("Content-Length")
    if told is None:
        return None
    if not (told.isascii() and told.isdecimal() and len(told) < 20):
        raise DataError(
            f"{printable(url)}: its server says Content-Length: {printable(told[:50])}; expected a number of bytes"
        )
    return int(told)


def _require_size(url: str, found: int, size: int | None) -> None:
    if size is not None and found != size:
        raise DataError(
            f"{printable(url)}: has {found:,} bytes, and its index says {size:,}: it was cut off or changed; "
            "start again, or have it made again"
        )


class _PlainRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to http and https alone, and never from https to http, where anybody could answer."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        there = newurl.lower()
        if not is_url(there) or (req.type == "https" and not there.startswith("https:")):
            raise urllib.error.URLError(f"its server sends for it to {newurl}; expected {req.type}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # pyright: ignore[reportArgumentType]


_OPENER = urllib.request.build_opener(_PlainRedirects)
