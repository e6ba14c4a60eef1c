"""Datasets of Hugging Face, from a folder or the Hub (extra `hf`): their bytes are decoded by our own rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_experiments.data.hub_columns import class_order, find_image_column, find_label_column, label_texts
from tl_experiments.data.hub_rows import HubSource, homes_of, load_splits, undecoded
from tl_experiments.data.image_files import printable
from tl_experiments.data.labelled import Division, as_numbers, divided, natural_classes
from tl_experiments.data.naming import SPLIT_NAMES
from tl_experiments.data.source import Dataset, Files, Split
from tl_experiments.runtime.errors import DataError


def hf_dataset(
    *,
    name: str | None,
    root: str | None,
    subset: str | None,
    revision: str | None,
    image_column: str | None,
    label_column: str | None,
    train_size: int | float | None,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    crop_pct: float | None,
    follow_links: bool,
    on_bad_image: str,
) -> Dataset:
    """Find the images of a Hugging Face dataset, and split them where it does not.

    Its splits are known by their names: train, and val (or valid, validation) and test where they exist; others are
    ignored. One in which no row has a label, as tests whose labels are kept secret, counts as missing.

    Args:
        name: on the Hub; None where there is a root.
        root: a folder: of `save_to_disk`, or of files that `load_dataset` knows.
        subset: which of its configurations; None is the only one, or its default.
        revision: of the Hub's repository; None is its newest.
        image_column: that holds the images; None finds the one of type Image.
        label_column: that holds the classes; None finds the one of type ClassLabel, whose order is kept.
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after the splits.
        val_fraction: share of train that becomes val where there is no val, in (0, 1).
        test_fraction: share of all images that becomes test where there is no test, in (0, 1).
        split_seed: of the splits and of `train_size`.
        crop_pct: share of the shorter side that the centre crop keeps; None leaves it to the backbone.
        follow_links: images that are paths may lie outside of the dataset.
        on_bad_image: error, or skip, which leaves out what cannot be read or decoded.

    Raises:
        DataError: there is no such dataset, or it has no labelled images, or a class is too small to split.
        SettingError: no column fits, or a number is out of range.
    """
    loaded = _by_our_names(load_splits(name=name, root=root, subset=subset, revision=revision))
    images = find_image_column(loaded["train"], wanted=image_column)
    label = find_label_column(loaded["train"], wanted=label_column)
    labels = _labels(loaded, label, others=(images,))
    class_names = _class_names(labels, class_order(loaded["train"], label))
    homes = () if follow_links else homes_of(root)
    splits = {}
    for split, texts in labels.items():
        source = HubSource(undecoded(loaded[split], images), split, as_numbers(texts, class_names), homes)
        splits[split] = Split(split, source, np.arange(len(source)))
    return divided(
        splits,
        name=printable(Path(root).expanduser().absolute().name if root else str(name)),
        class_names=class_names,
        division=Division(
            train_size=train_size, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed
        ),
        crop_pct=crop_pct,
        files=Files(None, follow_links=follow_links, on_bad_image=on_bad_image),
    )


def _by_our_names(loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the splits that are train, val and test."""
    found: dict[str, Any] = {}
    there = ", ".join(map(printable, loaded))
    for name, rows in loaded.items():
        ours = SPLIT_NAMES.get(name.lower())
        if ours in found:
            raise DataError(f"dataset=hf: two splits are {ours} (there is {there}); expected one of each")
        if ours is not None:
            found[ours] = rows
    if "train" not in found:
        raise DataError(f"dataset=hf: no split is called train (there is {there or 'none'})")
    return found


def _labels(loaded: Mapping[str, Any], column: str, *, others: Sequence[str]) -> dict[str, list[str]]:
    """Return split → the class of each row, of the splits that have labels."""
    labels: dict[str, list[str]] = {}
    for split, rows in loaded.items():
        if missing := {column, *others} - set(rows.column_names):
            raise DataError(f"dataset=hf: {split} has no column {printable(missing.pop())}, which train has")
        texts = label_texts(rows, column)
        unlabelled = [row for row, text in enumerate(texts) if text is None]
        if split != "train" and len(unlabelled) == len(texts):
            continue
        if unlabelled:
            named = ", ".join(map(str, unlabelled[:5])) + (" ..." if len(unlabelled) > 5 else "")
            raise DataError(f"dataset=hf: {len(unlabelled):,} rows of {split} have no label in {column}: {named}")
        labels[split] = [text for text in texts if text is not None]
    if not labels["train"]:
        raise DataError("dataset=hf: no row is in train; expected some to learn from")
    return labels


def _class_names(labels: Mapping[str, Sequence[str]], order: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that occur, in the dataset's own order where it has one."""
    found = natural_classes(labels)
    return found if order is None else tuple(name for name in order if name in set(found))
