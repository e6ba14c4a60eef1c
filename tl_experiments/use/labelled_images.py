"""Labelled images that a person names: a folder of class folders, or a table; split or not."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tl_experiments.data.file_source import FileSource
from tl_experiments.data.folder import found_split
from tl_experiments.data.folder_scan import Problem, scan_folder
from tl_experiments.data.image_files import printable
from tl_experiments.data.image_table import read_image_table, read_labels
from tl_experiments.data.labelled import as_numbers
from tl_experiments.data.naming import SPLIT_NAMES, natural_key
from tl_experiments.data.row_groups import RowGroupSource, holds_images
from tl_experiments.data.source import Split
from tl_experiments.data.table_rows import PARQUET
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.files import disk_fault
from tl_experiments.runtime.typed_path import typed_path

TEST, ALL = "test", "all"
_AMISS = ("link", "unreadable")  # kinds of problems that keep images from being found


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split, or all where there are none.

    Attributes:
        split: the images, called `all` where there are no others; labels are places among the names of classes.
        class_names: of the source, in natural order.
        problems: that kept images from being found.
    """

    split: Split
    class_names: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


def labelled_images(source: str, *, split: str | None) -> LabelledImages:
    """Find labelled images; none is read, and links are followed.

    Args:
        source: a folder CLASS/*.jpg, or with train, val and test above that; or a CSV or Parquet file with image_path,
            label and perhaps split. Parquet may hold the images themselves.
        split: train, val or test; None is test where images are split, and else all of them.

    Raises:
        DataError: there is no such source, no such split, or no image in it.
    """
    if split is not None and split not in SPLIT_NAMES.values():
        raise DataError(f"--split {split}: expected train, val or test")
    path = typed_path(source)
    if path.is_dir():
        return _of_folder(path.resolve(), source, split)
    if path.is_file():
        return _of_table(path, source, split)
    raise DataError(
        f"{printable(source)}: no such folder or table; expected CLASS/*.jpg, or CSV or Parquet with labels"
    )


def _of_folder(root: Path, source: str, split: str | None) -> LabelledImages:
    alone = _alone(root, split or TEST)
    found = scan_folder(alone or root, follow_links=True)
    chosen, name = _chosen(found.splits, source, None if alone else split)
    images = replace(found_split(found, chosen, follow_links=True), name=(split or TEST) if alone else name)
    problems = tuple(problem for problem in found.problems if problem.kind in _AMISS)
    return LabelledImages(images, found.class_names, problems)


def _alone(root: Path, split: str) -> Path | None:
    """Return the folder of a split where no train is beside it, without which other folders would be classes."""
    try:
        names = [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{printable(root)}: cannot be read ({disk_fault(error)}); expected a folder to look into"
        ) from error
    kinds = {SPLIT_NAMES.get(name.lower()): name for name in names}
    return root / kinds[split] if split in kinds and not kinds.keys() & {None, "train"} else None


def _of_table(path: Path, source: str, split: str | None) -> LabelledImages:
    embedded = path.suffix.lower() == PARQUET and holds_images(path)
    table = read_labels(path) if embedded else read_image_table(path)
    class_names = tuple(sorted(set(table.labels), key=natural_key))
    labels = as_numbers(table.labels, class_names)
    paths = tuple(table.image_paths or ())
    images = (
        RowGroupSource(path, labels)
        if embedded
        else FileSource(path.parent.resolve(), paths, labels, follow_links=True)
    )
    splits = np.array(table.splits if table.splits is not None else [ALL] * len(table))
    chosen, name = _chosen(set(splits.tolist()), source, split)
    return LabelledImages(Split(name, images, np.flatnonzero(splits == chosen)), class_names)


def _chosen(there: Collection[str], source: str, split: str | None) -> tuple[str, str]:
    """Return which split is meant among those that are there, and what it is called."""
    if split is None and len(there) == 1:
        return next(iter(there)), ALL
    wanted = split or TEST
    if wanted not in there:
        found = "it is not split" if set(there) == {ALL} else f"there is {', '.join(sorted(there))}"
        raise DataError(f"{printable(source)}: no split {wanted} ({found}); --split chooses another")
    return wanted, wanted
