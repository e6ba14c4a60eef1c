"""Splits are stratified, seeded and nested, and say what is wrong when they cannot be made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError, SettingError

LABELS = np.repeat(np.arange(3), [100, 40, 10])
NAMES = ("ant", "bee", "cow")


def held_out(labels: np.ndarray = LABELS, *, fraction: float = 0.2, seed: int = 0, split: str = "val"):
    return hold_out(labels, fraction=fraction, seed=seed, split=split, class_names=NAMES)


def test_hold_out_takes_the_share_of_every_class():
    kept, held = held_out()
    assert np.bincount(LABELS[held]).tolist() == [20, 8, 2]
    assert sorted([*kept, *held]) == list(range(150))


def test_hold_out_is_a_function_of_seed_and_purpose():
    np.testing.assert_array_equal(held_out()[1], held_out()[1])
    assert set(held_out()[1]) != set(held_out(seed=1)[1])
    assert set(held_out()[1]) != set(held_out(split="test")[1])


def test_more_images_of_one_class_do_not_move_another():
    longer = np.concatenate([LABELS, np.full(25, 2)])
    _, held = held_out()
    _, held_longer = held_out(longer)
    assert set(held[LABELS[held] < 2]) == set(held_longer[longer[held_longer] < 2])


def test_small_classes_stay_on_both_sides():
    labels = np.repeat(np.arange(3), [50, 2, 3])
    kept, held = held_out(labels, fraction=0.1)
    assert set(labels[kept]) == set(labels[held]) == {0, 1, 2}
    kept, _ = held_out(labels, fraction=0.99)
    assert set(labels[kept]) == {0, 1, 2}


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(DataError, match=r"'bee'.*too few images to split off a val set \(found 1\)"):
        held_out(np.repeat(np.arange(3), [5, 1, 5]))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_a_fraction_that_leaves_one_side_empty_is_refused(fraction):
    with pytest.raises(SettingError, match=r"dataset\.val_fraction"):
        held_out(fraction=fraction)


def limited(train_size: int | float | None, *, seed: int = 0) -> np.ndarray:
    return limit_train_size(LABELS, train_size=train_size, seed=seed, num_classes=3)


@settings(max_examples=60, deadline=None)
@given(small=st.integers(3, 150), large=st.integers(3, 150), seed=st.integers(0, 5))
def test_a_smaller_train_size_is_a_stratified_subset_of_a_larger_one(small, large, seed):
    small, large = sorted((small, large))
    chosen = limited(small, seed=seed)
    assert len(chosen) == small
    assert set(chosen) <= set(limited(large, seed=seed))
    share = np.bincount(LABELS[chosen], minlength=3)
    assert share.min() >= 1
    assert abs(share - small * np.array([100, 40, 10]) / 150).max() < 2.5


def test_fractions_and_counts_are_the_same_choice():
    np.testing.assert_array_equal(limited(0.5), limited(75))
    np.testing.assert_array_equal(limited(1.0), np.arange(150))
    np.testing.assert_array_equal(limited(None), np.arange(150))
    assert len(limited(0.0001)) == 3


def test_the_choice_depends_on_the_seed():
    assert set(limited(60)) != set(limited(60, seed=1))


@pytest.mark.parametrize("train_size", [1, 2, 151, 0, -5, 0.0, 1.5])
def test_a_train_size_out_of_range_names_the_key(train_size):
    with pytest.raises(SettingError, match=rf"dataset\.train_size={train_size}"):
        limited(train_size)
