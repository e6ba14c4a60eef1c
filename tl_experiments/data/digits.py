"""The embedded dataset: 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin and Kaynak 1998)."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tl_experiments.data.source import ArraySource, Dataset, Split
from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError

_TEST_FRACTION, _TEST_SEED = 0.2, 0  # the test split is part of the dataset: no setting moves it
_CLASS_NAMES = tuple("0123456789")


def digits(
    *,
    train_size: int | float | None,
    val_fraction: float,
    split_seed: int,
    image_size: int,
    crop_pct: float,
) -> Dataset:
    """Load the digits; a fixed stratified fifth is the test split.

    Args:
        train_size: a count of at least 10, a fraction in (0, 1], or None for all; applied after val is split off.
        val_fraction: share of the other four fifths that is val, in (0, 1).
        split_seed: of val and of `train_size`.
        image_size: the size that the dataset asks of the backbone.
        crop_pct: share of the canvas that the centre crop keeps; 1 crops nothing.

    Raises:
        DataError: scikit-learn's file is not installed.
        SettingError: `train_size` or `val_fraction` is out of range.
    """
    source = _source()
    rest, test = hold_out(
        source.labels, fraction=_TEST_FRACTION, seed=_TEST_SEED, split="test", class_names=_CLASS_NAMES
    )
    kept, held = hold_out(
        source.labels[rest], fraction=val_fraction, seed=split_seed, split="val", class_names=_CLASS_NAMES
    )
    train = rest[kept]
    chosen = limit_train_size(
        source.labels[train], train_size=train_size, seed=split_seed, num_classes=len(_CLASS_NAMES)
    )
    return Dataset(
        name="digits",
        class_names=_CLASS_NAMES,
        train=Split("train", source, train[chosen]),
        val=Split("val", source, rest[held]),
        test=Split("test", source, test),
        image_size=image_size,
        crop_pct=crop_pct,
        mirror_safe=False,
    )


def _source() -> ArraySource:
    """Read the file behind `load_digits` without importing scikit-learn, which takes a second."""
    spec = find_spec("sklearn")
    folders = (spec and spec.submodule_search_locations) or []
    files = [Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders]
    if not files or not files[0].is_file():
        raise DataError("dataset=digits needs the file that scikit-learn ships: pip install 'scikit-learn>=1.5'")
    rows = np.loadtxt(files[0], delimiter=",", dtype=np.uint8)
    grey = (rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    return ArraySource(grey, rows[:, -1].astype(np.int64), "digits")
