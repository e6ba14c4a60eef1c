"""Reading the files of a folder of images: never from a pipe or a device, and from the folder itself alone."""

import errno
import stat
from pathlib import Path

from tl_experiments.data.decoding import ImageError

MAX_BYTES = 10**9  # the most pixels that are decoded take less without any compression
NOWHERE = (errno.ENOENT, errno.ELOOP)  # how a link fails that has no end


def read_image_file(path: Path, *, within: Path | None) -> bytes:
    """Read a file whole.

    Args:
        path: it may be a link.
        within: a resolved folder that no link may leave; None lets links lead anywhere.

    Raises:
        ImageError: it is no file, leaves the folder, is too large, or cannot be read.
    """
    name = printable(path)
    try:
        if path.is_symlink() and within is not None and leaves(path, within):
            raise ImageError(name, "link", leaving(path))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before it is opened: opening a pipe would wait for its writer
            raise ImageError(name, "no file", f"{_named(status.st_mode)}, not a file; remove it")
        if status.st_size > MAX_BYTES:
            raise ImageError(name, "oversized", f"more than {MAX_BYTES / 1e9:.0f} GB; make it smaller")
        return path.read_bytes()
    except OSError as error:
        if error.errno in NOWHERE and path.is_symlink():  # in this order: asking of a name that is too long would fail
            raise ImageError(name, "link", "the link leads nowhere; repair or remove it") from error
        raise ImageError(name, "unreadable", f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # of a path with a null byte
        raise ImageError(name, "unreadable", f"no file can be called so ({error})") from error


def leaves(link: Path, folder: Path) -> bool:
    """Whether a link that leads somewhere leads out of a resolved folder.

    Raises:
        OSError: it leads nowhere.
    """
    try:
        return not link.resolve(strict=True).is_relative_to(folder)
    except RuntimeError as error:  # so Python before 3.13 tells of a link to itself
        raise OSError(errno.ELOOP, str(error)) from error


def leaving(link: Path) -> str:
    """Say what is wrong with a link that leaves its folder, and what to do."""
    return (
        f"the link leaves the folder, to {printable(link.resolve())}; "
        "put there what it leads to, or allow such links by dataset.follow_links=true"
    )


def printable(path: Path | str) -> str:
    """Return a path as it can be printed, in one line: what cannot be, as bytes that are no text, is escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def _named(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
