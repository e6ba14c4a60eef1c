"""Files by a pattern, as a shell would find them, one by one and in order."""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from tl_experiments.inference.image_walk import is_folder, walk

ANY_DEPTH = "**"
_WILDCARDS = re.compile(r"[*?[]")


def has_wildcards(text: str) -> bool:
    return _WILDCARDS.search(text) is not None


def matching_files(pattern: str) -> Iterator[str]:
    """Yield the paths of what is no folder and matches, sorted by each part of the path.

    `*`, `?` and `[...]` stand for what a name has, but no wildcard for the dot of a hidden one; `**` stands for any
    folders, none too. Folders that links lead to are entered once.
    """
    first, *parts = pattern.split(os.sep)  # noqa: PTH206 - pathlib would drop the ./ that was typed
    if first == "":  # an absolute path
        return _files(os.sep, parts)
    return _files("", [first, *parts])


def _files(folder: str, parts: Sequence[str]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    if part == ANY_DEPTH:
        while rest and rest[0] == ANY_DEPTH:
            rest = rest[1:]
        for below, _, fault in walk(folder or os.curdir):
            if fault is None:
                yield from _files(_typed(below, folder), rest or ["*"])
    elif not has_wildcards(part):
        path = os.path.join(folder, part)  # noqa: PTH118 - as it is typed
        if rest:
            yield from _files(path, rest)
        elif part and os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112
            yield path
    else:
        for path, leads_on in _named(folder, part):
            if rest and leads_on:
                yield from _files(path, rest)
            elif not rest and not leads_on:
                yield path


def _typed(below: str, folder: str) -> str:
    """Leave out the `./` that a walk from here begins with."""
    return below if folder else os.path.relpath(below).removeprefix(os.curdir)


def _named(folder: str, part: str) -> list[tuple[str, bool]]:
    """Return what matches in a folder, and whether it is a folder; nothing where the folder cannot be read."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            found = sorted((entry.name, is_folder(entry)) for entry in entries if _fits(entry.name, part))
    except OSError:
        return []
    return [(os.path.join(folder, name), leads_on) for name, leads_on in found]  # noqa: PTH118


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
