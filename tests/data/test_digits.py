"""The embedded digits are scikit-learn's, and their test split never moves."""

import numpy as np
from sklearn.datasets import load_digits

from tl_experiments.data.digits import digits
from tl_experiments.data.source import Dataset


def loaded(*, train_size: int | float | None = None, val_fraction: float = 0.1, split_seed: int = 0) -> Dataset:
    return digits(
        train_size=train_size,
        val_fraction=val_fraction,
        split_seed=split_seed,
        image_size=64,
        crop_pct=1.0,
    )


def test_the_pixels_are_those_of_load_digits():
    source = loaded().train.source
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(source.labels, labels)
    grey = np.stack([np.asarray(source.image(index))[..., 0] for index in range(len(source))])
    np.testing.assert_allclose(grey.reshape(-1, 64), pixels * 255 / 16, atol=0.51)


def test_splits_are_disjoint_and_whole():
    dataset = loaded()
    parts = [dataset.train.indices, dataset.val.indices, dataset.test.indices]
    assert sorted(np.concatenate(parts)) == list(range(1797))
    assert [len(part) for part in parts] == [1295, 143, 359]
    assert [np.bincount(split.labels).min() > 0 for split in (dataset.train, dataset.val, dataset.test)] == [True] * 3


def test_no_setting_moves_the_test_split():
    other = loaded(split_seed=9, val_fraction=0.3, train_size=100)
    np.testing.assert_array_equal(other.test.indices, loaded().test.indices)
    assert set(other.val.indices) != set(loaded().val.indices)
    assert len(other.train) == 100


def test_what_the_dataset_asks_for():
    dataset = loaded()
    assert (dataset.num_classes, dataset.image_size, dataset.crop_pct) == (10, 64, 1.0)
    assert not dataset.mirror_safe
