"""Your own images, listed in a table: paths and labels in a CSV file, or paths or the images themselves in Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tl_experiments.data.file_source import FileSource
from tl_experiments.data.image_files import leaves, printable
from tl_experiments.data.image_table import ImageTable, read_image_table, read_labels
from tl_experiments.data.labelled import Division, as_numbers, divided, natural_classes
from tl_experiments.data.row_groups import RowGroupSource, holds_images
from tl_experiments.data.source import Dataset, Files, ImageSource, Split
from tl_experiments.data.table_rows import CSV, PARQUET, require_table, row_name
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.typed_path import typed_path

_SPLITS = ("train", "val", "test")


def csv_table(
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
    """Find the images that a CSV file lists, and split them where it does not.

    Args:
        root: the file; its columns are image_path, label and, where it is split, split. Paths are relative to its
            folder and lead to what is below it.
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after the splits.
        val_fraction: share of train that becomes val where there is no val, in (0, 1).
        test_fraction: share of all images that becomes test where there is no test, in (0, 1).
        split_seed: of the splits and of `train_size`.
        crop_pct: share of the shorter side that the centre crop keeps; None leaves it to the backbone.
        follow_links: paths and links may lead out of the folder of the file.
        on_bad_image: error, or skip, which leaves out what cannot be read or decoded.

    Raises:
        DataError: the file is missing or malformed, or a class is too small to split.
        SettingError: `train_size` or a fraction is out of range.
    """
    division = Division(train_size=train_size, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    path = _table_path(root, CSV)
    files = Files(path, follow_links=follow_links, on_bad_image=on_bad_image)
    return _dataset(path, files, division=division, crop_pct=crop_pct)


def parquet_table(
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
    """Find the images that a Parquet file lists or holds, and split them where it does not.

    Args:
        root: the file; its columns are those of `csv_table`'s, or instead of image_path there is image with the bytes
            of image files, which goes first where both are there.
        train_size: and all others: as `csv_table` has them.

    Raises:
        DataError: the file is missing or malformed, or a class is too small to split.
        SettingError: `train_size` or a fraction is out of range.
    """
    division = Division(train_size=train_size, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    path = _table_path(root, PARQUET)
    files = Files(path, follow_links=follow_links, on_bad_image=on_bad_image)
    return _dataset(path, files, division=division, crop_pct=crop_pct)


def _table_path(root: str, extension: str) -> Path:
    path = typed_path(root)
    if path.suffix.lower() != extension:
        raise DataError(f"dataset.root={printable(root)}: expected a file called FILE{extension}")
    require_table(path)
    return path


def _dataset(path: Path, files: Files, *, division: Division, crop_pct: float | None) -> Dataset:
    class_names, splits = table_splits(path, follow_links=files.follow_links)
    return divided(
        splits,
        name=printable(path.stem),
        class_names=class_names,
        division=division,
        crop_pct=crop_pct,
        files=files,
    )


def table_splits(path: Path, *, follow_links: bool) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Return the classes of a table, in natural order, and the splits that it has; train alone where it is not split.

    Args:
        path: FILE.csv or FILE.parquet.
        follow_links: paths and links may lead out of the folder of the file.

    Raises:
        DataError: the file is missing or malformed.
    """
    require_table(path)
    embedded = path.suffix.lower() == PARQUET and holds_images(path)
    table = read_labels(path) if embedded else read_image_table(path)
    positions = _positions(table)
    class_names = natural_classes({split: [table.labels[at] for at in found] for split, found in positions.items()})
    labels = as_numbers(table.labels, class_names)
    source = RowGroupSource(path, labels) if embedded else _files_of(table, labels, follow_links=follow_links)
    return class_names, {split: Split(split, source, found) for split, found in positions.items()}


def _positions(table: ImageTable) -> dict[str, np.ndarray]:
    """Split → where its images are in the table."""
    if table.splits is None:
        return {"train": np.arange(len(table))}
    names = np.array(table.splits)
    found = {split: np.flatnonzero(names == split) for split in _SPLITS}
    if not len(found["train"]):
        raise DataError(f"{printable(table.path)}: no row is of split train; expected some to learn from")
    return {split: positions for split, positions in found.items() if len(positions)}


def _files_of(table: ImageTable, labels: np.ndarray, *, follow_links: bool) -> ImageSource:
    root, image_paths = table.path.parent.resolve(), tuple(table.image_paths or ())
    if not follow_links:
        _require_inside(table, image_paths, root)
    if not any(_is_there(root / image_path) for image_path in image_paths):
        missing = next(root / image_path for image_path in image_paths)
        raise DataError(
            f"{printable(table.path)}: none of its images is there, such as {printable(missing)}; "
            "paths are relative to the folder of the table"
        )
    return FileSource(root, image_paths, labels, follow_links)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name may be too long, a folder closed
        return False


def _require_inside(table: ImageTable, image_paths: Sequence[str], root: Path) -> None:
    """See that no path leads out of the folder of the table, whoever wrote it; links of files are seen when read."""
    folders: dict[str, int] = {}
    for at, image_path in enumerate(image_paths):
        folders.setdefault(str(Path(image_path).parent), at)
    for folder, at in folders.items():
        try:
            outside = leaves(root / folder, root)
        except OSError:  # it leads nowhere, which reading its images will tell
            continue
        if outside:
            raise DataError(
                f"{printable(table.path)}, {row_name(table.path, int(table.rows[at]))}: {printable(image_paths[at])} "
                "leads out of the folder of the table; put the table above its images, or allow such paths by "
                "dataset.follow_links=true"
            )
