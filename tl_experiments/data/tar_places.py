"""Which tar files a root stands for, and which split each belongs to."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tl_experiments.data.image_files import printable
from tl_experiments.data.naming import SPLIT_NAMES, natural_key
from tl_experiments.data.tar_library import expand
from tl_experiments.runtime.errors import DataError, SettingError
from tl_experiments.runtime.typed_path import is_pattern, is_url, typed_path

TAR = ".tar"
_EXPECTED = "a folder of tar files, or their names with braces, as train-{0000..0015}.tar, also on http or https"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def require_plain(root: str) -> None:
    """See that a root is a path, or a URL that is fetched without running a command.

    Raises:
        SettingError: it is something else.
    """
    for part in root.split("::"):
        if "::" in root or (_SCHEME.match(part) and not is_url(part)):
            raise SettingError(f"dataset.root={printable(root)}: {printable(part)} is not read; expected {_EXPECTED}")


def tar_places(root: str) -> dict[str, str]:
    """Return the places of tar files, in order, and the split of each; all are train where no name tells.

    Args:
        root: a folder, in which they lie, or in its train/, val/ (or valid/, validation/) and test/; or the names
            of files or URLs.

    Raises:
        DataError: there are none, or not all tell their split, or none is of train.
        SettingError: the root cannot be one.
    """
    require_plain(root)
    names = expand(root) if is_pattern(root) else [root]
    if is_url(root):
        for name in names:
            require_plain(name)
        places = {name: (PurePosixPath(name).parent.name, PurePosixPath(name).name) for name in names}
    else:
        places = _on_disk([typed_path(name) for name in names], root)
    splits = {place: _split_of(parts) for place, parts in places.items()}
    silent = [place for place, split in splits.items() if split is None]
    if len(silent) == len(splits):
        return dict.fromkeys(splits, "train")
    if silent:
        raise DataError(
            f"dataset.root={printable(root)}: {printable(PurePosixPath(silent[0]).name)} does not tell its split and "
            "others do; expected train, val or test in the name of each, or of none"
        )
    if "train" not in splits.values():
        raise DataError(f"dataset.root={printable(root)}: no shard is of train; expected some to learn from")
    return {place: split for place, split in splits.items() if split is not None}


def _on_disk(paths: Sequence[Path], root: str) -> dict[str, tuple[str, str]]:
    """Return absolute paths, and for each the names of its folder, empty where it is the root itself, and its own."""
    if len(paths) > 1 or not paths[0].is_dir():
        if missing := [path for path in paths if not path.is_file()]:
            raise DataError(f"{printable(missing[0])}: no such file; expected {_EXPECTED}")
        return {str(path): (path.parent.name, path.name) for path in paths}
    folder = paths[0]
    found = [*folder.glob(f"*{TAR}"), *(path for path in folder.glob(f"*/*{TAR}") if _is_split(path.parent.name))]
    if not found:
        raise DataError(f"dataset.root={printable(root)}: no {TAR} files in it; expected {_EXPECTED}")
    found.sort(key=lambda path: natural_key(path.relative_to(folder).as_posix()))
    return {str(path): (path.parent.name if path.parent != folder else "", path.name) for path in found}


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_NAMES


def _split_of(parts: tuple[str, str]) -> str | None:
    """Return the split that a file's name tells in a word of its own, as imagenet-val-0003.tar, or its folder's."""
    folder, name = parts
    words = re.split("[^a-z]+", name.lower().removesuffix(TAR))
    told = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return told.pop() if len(told) == 1 else SPLIT_NAMES.get(folder.lower())
