"""Your own images: ROOT/train/CLASS/*.jpg with val/ and test/ likewise, or ROOT/CLASS/*.jpg, split by seed."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tl_experiments.data.decoding import decode, recognise
from tl_experiments.data.folder_scan import folders_in, scan_classes
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class FileSource:
    """Image files below a root.

    Attributes:
        root: resolved folder.
        paths: relative to the root.
        labels: (N,) int64.
    """

    root: Path
    paths: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        return decode(self._read(index), name=str(self._path(index)))

    def content(self, index: int) -> bytes:
        content = self._read(index)
        recognise(content, name=str(self._path(index)))
        return content

    def _read(self, index: int) -> bytes:
        try:
            return self._path(index).read_bytes()
        except OSError as error:
            raise DataError(f"{self._path(index)}: cannot be read ({error.strerror})") from error

    def _path(self, index: int) -> Path:
        return self.root / self.paths[index]

    def name(self, index: int) -> str:
        return self.paths[index]


def image_folder(
    *,
    root: str,
    train_size: int | float | None,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    crop_pct: float | None,
) -> Dataset:
    """Find the images of a folder and split them.

    Args:
        root: holds train/, and val/ (or valid/, validation/) and test/ where they exist (folders beside them are
            ignored), or else one folder per class.
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after the splits.
        val_fraction: share of train that becomes val where there is no val/, in (0, 1).
        test_fraction: share of all images that becomes test where there is no test/, in (0, 1).
        split_seed: of the splits and of `train_size`.
        crop_pct: share of the shorter side that the centre crop keeps; None leaves it to the backbone.

    Raises:
        DataError: the folder is missing or malformed, or a class is empty or too small to split.
        SettingError: `train_size` or a fraction is out of range.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"dataset.root={root}: no such folder; expected one with train/CLASS/*.jpg or CLASS/*.jpg")
    folder = folder.resolve()
    given = _scan_splits(folder)
    class_names = tuple(given["train"])
    if len(class_names) < 2:
        raise DataError(f"{folder}: found one class ({', '.join(class_names)}); classification needs at least two")
    splits = {name: _split(name, classes, class_names, folder) for name, classes in given.items()}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if name not in splits:
            splits |= _split_off(splits["train"], name, fraction, split_seed, class_names)
    train = splits["train"]
    chosen = limit_train_size(train.labels, train_size=train_size, seed=split_seed, num_classes=len(class_names))
    return Dataset(
        name=folder.name,
        class_names=class_names,
        train=Split("train", train.source, train.indices[chosen]),
        val=splits["val"],
        test=splits["test"],
        crop_pct=crop_pct,
    )


def _scan_splits(root: Path) -> dict[str, dict[str, list[str]]]:
    """The classes of every split that has its own folder; a folder of classes alone is all train."""
    names = folders_in(root)
    folders = [(_SPLIT_NAMES[name.lower()], root / name) for name in names if name.lower() in _SPLIT_NAMES]
    kinds = [kind for kind, _ in folders]
    has_classes = any(kind == "train" and folders_in(folder) for kind, folder in folders)
    if not has_classes and len(folders) < len(names):
        return {"train": scan_classes(root, root=root)}
    if not names:
        raise DataError(f"{root}: no folders in it, so no images; expected train/CLASS/*.jpg or CLASS/*.jpg")
    if "train" not in kinds:
        raise DataError(f"{root}: found {', '.join(names)} but no train/; expected train/CLASS/*.jpg or CLASS/*.jpg")
    if len(set(kinds)) < len(kinds):
        raise DataError(f"{root}: two folders for one split ({', '.join(names)}); keep one of each")
    return {kind: scan_classes(folder, root=root) for kind, folder in folders}


def _split(name: str, classes: dict[str, list[str]], class_names: tuple[str, ...], root: Path) -> Split:
    """Label one split by the names of train's classes."""
    unknown = [found for found in classes if found not in class_names]
    if unknown:
        raise DataError(f"{root}: {name} has classes that train has not: {', '.join(unknown[:3])}")
    paths = tuple(path for files in classes.values() for path in files)
    labels = np.repeat(
        np.array([class_names.index(found) for found in classes], dtype=np.int64),
        [len(files) for files in classes.values()],
    )
    return Split(name, FileSource(root, paths, labels), np.arange(len(paths)))


def _split_off(train: Split, name: str, fraction: float, seed: int, class_names: tuple[str, ...]) -> dict[str, Split]:
    kept, held = hold_out(train.labels, fraction=fraction, seed=seed, split=name, class_names=class_names)
    return {
        "train": Split("train", train.source, train.indices[kept]),
        name: Split(name, train.source, train.indices[held]),
    }
