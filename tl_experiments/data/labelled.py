"""Labelled images that their maker may have split: the rest is split off by seed, and train made as small as wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tl_experiments.data.image_files import printable
from tl_experiments.data.naming import natural_key
from tl_experiments.data.source import Dataset, Files, Split
from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Division:
    """How images are divided where they are not yet.

    Attributes:
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after the splits.
        val_fraction: share of train that becomes val where there is none, in (0, 1).
        test_fraction: share of all images that becomes test where there is none, in (0, 1).
        seed: of the splits and of `train_size`.
    """

    train_size: int | float | None
    val_fraction: float
    test_fraction: float
    seed: int


def divided(
    splits: Mapping[str, Split],
    *,
    name: str,
    class_names: tuple[str, ...],
    division: Division,
    crop_pct: float | None,
    files: Files,
    shuffle_buffer: int | None = None,
) -> Dataset:
    """Make a dataset of the splits that are there: train, in which every class occurs, and val and test or neither.

    Args:
        splits: by name.
        name: of the dataset, for people.
        class_names: one per label, in label order.
        division: how the missing ones are made.
        crop_pct: as the dataset's.
        files: whose contents the images are.
        shuffle_buffer: as the dataset's.

    Raises:
        DataError: there are fewer than two classes, or one is too small to split.
        SettingError: `train_size` or a fraction is out of range.
    """
    if len(class_names) < 2:
        found = printable(", ".join(class_names))
        raise DataError(f"{name}: found one class ({found}); classification needs at least two")
    splits = dict(splits)
    for split, fraction in (("test", division.test_fraction), ("val", division.val_fraction)):
        if split not in splits:
            splits |= _split_off(splits["train"], split, fraction, division.seed, class_names)
    train = splits["train"]
    chosen = limit_train_size(
        train.labels, train_size=division.train_size, seed=division.seed, num_classes=len(class_names)
    )
    return Dataset(
        name=name,
        class_names=class_names,
        train=Split("train", train.source, train.indices[chosen]),
        val=splits["val"],
        test=splits["test"],
        crop_pct=crop_pct,
        files=files,
        shuffle_buffer=shuffle_buffer,
    )


def _split_off(train: Split, name: str, fraction: float, seed: int, class_names: tuple[str, ...]) -> dict[str, Split]:
    kept, held = hold_out(train.labels, fraction=fraction, seed=seed, split=name, class_names=class_names)
    return {
        "train": Split("train", train.source, train.indices[kept]),
        name: Split(name, train.source, train.indices[held]),
    }


def natural_classes(labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the classes of train's images in natural order.

    Args:
        labels: split → the class of each of its images.

    Raises:
        DataError: another split has a class that train has not.
    """
    known = set(labels["train"])
    for split, names in labels.items():
        if unknown := sorted(set(names) - known, key=natural_key):
            named = ", ".join(printable(repr(name)) for name in unknown[:3]) + (" ..." if len(unknown) > 3 else "")
            raise DataError(f"{split} has images of {named}, of which train has none; add or remove them")
    return tuple(sorted(known, key=natural_key))


def as_numbers(labels: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Return the place of each label among the classes, (N,) int64."""
    places = {name: at for at, name in enumerate(class_names)}
    return np.fromiter((places[label] for label in labels), dtype=np.int64, count=len(labels))
