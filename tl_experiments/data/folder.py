"""Your own images: ROOT/train/CLASS/*.jpg with val/ and test/ likewise, or ROOT/CLASS/*.jpg, split by seed."""

import numpy as np

from tl_experiments.data.file_source import FileSource
from tl_experiments.data.folder_scan import FolderScan, resolved_root, scan_folder
from tl_experiments.data.image_files import printable
from tl_experiments.data.labelled import Division, divided
from tl_experiments.data.source import Dataset, Files, Split
from tl_experiments.runtime.errors import DataError


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
    return divided(
        {name: found_split(found, name, follow_links=follow_links) for name in found.splits},
        name=folder.name,
        class_names=found.class_names,
        division=Division(
            train_size=train_size, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed
        ),
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
