"""What a folder of images holds: splits, classes and files in natural order, and what is wrong with the folder.

Hidden files and folders are ignored, and so is every file without an image's extension. Links are followed inside the
root. Whatever else has an image's name, a pipe or a broken link too, is listed: reading it tells what is wrong with it.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tl_experiments.data.decoding import EXTENSIONS
from tl_experiments.data.image_files import NOWHERE, leaves, leaving, printable
from tl_experiments.data.naming import SPLIT_NAMES, natural_key
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.typed_path import typed_path

_KNOWN = " ".join(EXTENSIONS)
_EXPECTED = "train/CLASS/*.jpg or CLASS/*.jpg"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a folder of images.

    Attributes:
        path: relative to the root, as it can be printed.
        kind: of the fault, in a word or two.
        reason: what is wrong and what to do about it.
    """

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds.

    Attributes:
        root: resolved.
        splits: split → class → sorted paths relative to the root, with forward slashes; classes in natural order. A
            root without split folders is all train.
        problems: for each of which the folder cannot be learnt from.
    """

    root: Path
    splits: dict[str, dict[str, list[str]]]
    problems: tuple[Problem, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Train's classes, and behind them those that another split alone has, which are problems."""
        return tuple(dict.fromkeys(name for split in ("train", *self.splits) for name in self.splits[split]))


def resolved_root(root: str, *, named: str) -> Path:
    """Return where a folder of images really is.

    Args:
        root: as it was typed.
        named: how the message calls it.

    Raises:
        DataError: there is no such folder.
        SettingError: there can be none.
    """
    folder = typed_path(root)
    if not folder.is_dir():
        raise DataError(f"{named}: no such folder; expected one with {_EXPECTED}")
    return folder.resolve()


def scan_folder(root: Path, *, follow_links: bool) -> FolderScan:
    """Find the images of each class folder, at any depth; none is read.

    Args:
        root: resolved; holds train/, and val/ (or valid/, validation/) and test/ where they exist (folders beside them
            are ignored), or else one folder per class.
        follow_links: out of the root too.

    Raises:
        DataError: there is nothing that could be classes of images.
    """
    walk = _Walk(root, follow_links)
    splits = _scan_splits(walk)
    return FolderScan(root, splits, tuple(walk.problems.values()))


def _scan_splits(walk: "_Walk") -> dict[str, dict[str, list[str]]]:
    """The classes of every split that has its own folder; a folder of classes alone is all train."""
    root, names = walk.root, walk.folders_in(walk.root)
    folders = [(SPLIT_NAMES[name.lower()], root / name) for name in names if name.lower() in SPLIT_NAMES]
    kinds = [kind for kind, _ in folders]
    has_classes = any(kind == "train" and walk.folders_in(folder) for kind, folder in folders)
    if (not has_classes and len(folders) < len(names)) or (not names and walk.problems):
        folders = [("train", root)]
    elif not names:
        raise DataError(f"{root}: no folders in it, so no images; expected {_EXPECTED}")
    elif "train" not in kinds:
        raise DataError(f"{root}: found {', '.join(names)} but no train/; expected {_EXPECTED}")
    elif len(set(kinds)) < len(kinds):
        raise DataError(f"{root}: two folders for one split ({', '.join(names)}); keep one of each")
    splits = {kind: _scan_classes(walk, folder) for kind, folder in folders}
    for kind, folder in folders:
        for name in (name for name in splits[kind] if name not in splits["train"]):
            walk.tell(folder / name, "unknown class", f"{kind} has a class that train has not; add or remove it")
    return splits


def _scan_classes(walk: "_Walk", folder: Path) -> dict[str, list[str]]:
    """Find the images of each class folder; raises DataError where there are no class folders or no images."""
    names = walk.folders_in(folder)
    classes = {name: walk.images_below(folder / name) for name in names}
    if not any(classes.values()) and not walk.problems:
        if not names:
            raise DataError(f"{folder}: no class folders; expected one folder per class, such as {folder}/cat/1.jpg")
        raise DataError(f"{folder}: no images in its folders; expected {_KNOWN}")
    for name in (name for name, files in classes.items() if not files):
        walk.tell(folder / name, "empty class", f"empty class folder; add images ({_KNOWN}) or remove it")
    return classes


@dataclass(frozen=True)
class _Walk:
    """Looks into folders, and gathers what is wrong with them, by path."""

    root: Path
    follow_links: bool
    problems: dict[Path, Problem] = field(default_factory=dict)

    def tell(self, path: Path, kind: str, reason: str) -> None:
        """Note what is wrong with a path, unless something was noted before."""
        self.problems.setdefault(path, Problem(printable(self._below(path)), kind, reason))

    def folders_in(self, folder: Path) -> list[str]:
        """Names of the visible folders, in natural order."""
        names = [entry.name for entry in self._entries(folder) if self._kind(entry) == "folder"]
        return sorted(names, key=natural_key)

    def images_below(self, folder: Path) -> list[str]:
        """Paths of the images in a folder and the folders in it, relative to the root and sorted.

        A folder that was seen, as a link to a parent is, is not entered again.
        """
        found, seen = list[str](), {self.root, *folder.parents}
        waiting = [(folder, folder.resolve())]  # not a call for each: folders may be deeper than calls
        while waiting:
            entered, resolved = waiting.pop()
            if resolved in seen:
                continue
            seen.add(resolved)
            inside: list[tuple[Path, Path]] = []
            for entry in self._entries(entered):
                kind, path = self._kind(entry), Path(entry.path)
                if kind == "folder":
                    inside.append((path, path.resolve() if entry.is_symlink() else resolved / entry.name))
                elif kind == "image":
                    found.append(self._below(path))
            waiting += reversed(inside)  # the first by name is entered first
        return sorted(found)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What is visible in a folder, by name: of a folder that is linked twice, always the same path is found."""
        try:
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            self.tell(folder, "unreadable", f"the folder cannot be read ({error.strerror})")
            return []
        return sorted(visible, key=lambda entry: entry.name)

    def _kind(self, entry: os.DirEntry[str]) -> str | None:
        """Say whether it is a folder to enter or called as an image is; a link that is neither is told of."""
        path, named = Path(entry.path), Path(entry.name).suffix.lower() in EXTENSIONS
        try:
            if not stat.S_ISDIR(entry.stat().st_mode):
                return "image" if named else None
            if not entry.is_symlink() or self.follow_links or not leaves(path, self.root):
                return "folder"
            self.tell(path, "link", leaving(path))
        except OSError as error:
            if named:
                return "image"
            if entry.is_symlink() and error.errno in NOWHERE:
                self.tell(path, "link", "the link leads nowhere; repair or remove it")
            else:
                self.tell(path, "unreadable", f"cannot be read ({error.strerror})")
        return None

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
