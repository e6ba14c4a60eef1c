"""Which image files a folder of classes holds: in natural order, without hidden files; links are followed."""

import os
import re
from pathlib import Path

from tl_experiments.data.decoding import EXTENSIONS
from tl_experiments.runtime.errors import DataError


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key by which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def folders_in(folder: Path) -> list[str]:
    """Names of the visible folders, in natural order."""
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    return sorted(names, key=natural_key)


def scan_classes(folder: Path, *, root: Path) -> dict[str, list[str]]:
    """Find the images of each class folder, at any depth.

    Args:
        folder: holds one folder per class.
        root: resolved; paths are relative to it.

    Returns:
        class name -> sorted paths relative to the root, with forward slashes; classes in natural order.

    Raises:
        DataError: there are no class folders or no images, or a class folder is empty.
    """
    names = folders_in(folder)
    if not names:
        raise DataError(f"{folder}: no class folders; expected one folder per class, such as {folder}/cat/1.jpg")
    classes = {name: _images_below(folder / name, root=root) for name in names}
    empty = [name for name, files in classes.items() if not files]
    known = " ".join(EXTENSIONS)
    if len(empty) == len(classes):
        raise DataError(f"{folder}: no images in its folders; expected {known}")
    if empty:
        listed = ", ".join(str(folder / name) for name in empty[:3]) + (" ..." if len(empty) > 3 else "")
        raise DataError(f"empty class folder: {listed}; add images ({known}) or remove it")
    return classes


def _images_below(folder: Path, *, root: Path) -> list[str]:
    found: list[str] = []
    _walk(folder, root, {root, *folder.parents}, found)
    return sorted(found)


def _walk(folder: Path, root: Path, seen: set[Path], found: list[str]) -> None:
    """Collect images; a folder that was seen, as a link to a parent is, is not entered again."""
    resolved = folder.resolve()
    if resolved in seen:
        return
    seen.add(resolved)
    for entry in _entries(folder):
        if entry.is_dir():
            _walk(Path(entry.path), root, seen, found)
        elif Path(entry.name).suffix.lower() in EXTENSIONS and entry.is_file():
            found.append(Path(entry.path).relative_to(root).as_posix())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is visible in a folder, by name: of a folder that is linked twice, the same path is always found first."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    for entry in visible:
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 - False for a link to itself too
            raise DataError(f"{entry.path}: the link leads nowhere; repair or remove it")
    return sorted(visible, key=lambda entry: entry.name)
