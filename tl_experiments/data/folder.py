"""Your own images: ROOT/train/CLASS/*.jpg with val/ and test/ likewise, or ROOT/CLASS/*.jpg, split by seed."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tl_experiments.data.decoding import decode
from tl_experiments.data.folder_scan import FolderScan, resolved_root, scan_folder
from tl_experiments.data.image_files import printable, read_image_file
from tl_experiments.data.source import Dataset, Files, Split
from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError


@dataclass(frozen=True)
class FileSource:
    """Image files below a root.

    Attributes:
        root: resolved folder.
        paths: relative to the root.
        labels: (N,) int64.
        follow_links: out of the root too.
    """

    root: Path
    paths: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    follow_links: bool

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        return read_image_file(self.root / self.paths[index], within=None if self.follow_links else self.root)

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return decode(content, name=printable(self.root / self.paths[index]))

    def name(self, index: int) -> str:
        return printable(self.paths[index])


def image_folder(
    *,
    root: str,
    train_size: int | float | None,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    crop_pct: float | None,
    follow_links: bool,
    on_bad_image: str,
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
        follow_links: out of the root too.
        on_bad_image: error, or skip, which leaves out what cannot be read or decoded.

    Raises:
        DataError: the folder is missing or malformed, or a class is empty or too small to split.
        SettingError: `train_size` or a fraction is out of range.
    """
    folder = resolved_root(root, named=f"dataset.root={root}")
    files = Files(folder, follow_links=follow_links, on_bad_image=on_bad_image)
    found = scan_folder(folder, follow_links=follow_links)
    if found.problems:
        first, *others = found.problems
        more = f" ({len(others)} more; {files.scan_command} lists all)" if others else ""
        raise DataError(f"{printable(folder)}/{first.path}: {first.reason}{more}")
    class_names = found.class_names
    if len(class_names) < 2:
        raise DataError(f"{folder}: found one class ({', '.join(class_names)}); classification needs at least two")
    splits = {name: found_split(found, name, follow_links=follow_links) for name in found.splits}
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
        files=files,
    )


def found_split(found: FolderScan, name: str, *, follow_links: bool) -> Split:
    """Return all images of a split, labelled by the place of their class among `found.class_names`."""
    classes, labels_of = found.splits[name], {label: at for at, label in enumerate(found.class_names)}
    paths = tuple(path for files in classes.values() for path in files)
    labels = np.repeat(
        np.array([labels_of[label] for label in classes], dtype=np.int64), [len(files) for files in classes.values()]
    )
    return Split(name, FileSource(found.root, paths, labels, follow_links), np.arange(len(paths)))


def _split_off(train: Split, name: str, fraction: float, seed: int, class_names: tuple[str, ...]) -> dict[str, Split]:
    kept, held = hold_out(train.labels, fraction=fraction, seed=seed, split=name, class_names=class_names)
    return {
        "train": Split("train", train.source, train.indices[kept]),
        name: Split(name, train.source, train.indices[held]),
    }
