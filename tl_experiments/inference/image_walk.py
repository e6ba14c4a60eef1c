"""The images below a folder, found while they are used."""

import os
from collections.abc import Iterator

from tl_experiments.data.decoding import EXTENSIONS
from tl_experiments.data.image_files import printable
from tl_experiments.runtime.errors import DataError

_KNOWN = frozenset(EXTENSIONS)


def images_below(root: str) -> Iterator[tuple[str, str | None]]:
    """Yield the path of each image, or of a folder that cannot be read, and in that case why.

    Paths begin with the root as it is given. Hidden files and folders are ignored. Links are followed; a folder that
    was seen, as a link to a parent is, is not entered again.

    Raises:
        DataError: the root itself cannot be read.
    """
    for folder, names, fault in walk(root):
        if fault is not None and folder == root:
            raise DataError(f"{printable(root)}: {fault}")
        if fault is not None:
            yield folder, fault
        for name in names:
            if os.path.splitext(name)[1].lower() in _KNOWN:  # noqa: PTH122 - of a million names
                yield os.path.join(folder, name), None  # noqa: PTH118


def walk(root: str) -> Iterator[tuple[str, list[str], str | None]]:
    """Yield each visible folder from the root on, the names of its visible files, sorted, and why it cannot be read."""
    waiting, seen = [root], set[tuple[int, int]]()  # not a call for each: folders may be deeper than calls
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116 - folders may be many
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders = _visible(folder)
        except OSError as error:
            yield folder, [], f"the folder cannot be read ({error.strerror})"
            continue
        yield folder, files, None
        waiting += (os.path.join(folder, name) for name in reversed(folders))  # noqa: PTH118 - the first is popped first


def _visible(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders, both sorted; a link is what it leads to, a broken one a file."""
    files, folders = list[str](), list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if is_folder(entry) else files).append(entry.name)
    return sorted(files), sorted(folders)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # as of a link to itself: reading it tells
        return False
