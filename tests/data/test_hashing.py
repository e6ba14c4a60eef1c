"""Hashed numbers are fixed for good, uniform, and independent of what is drawn beside them."""

import numpy as np

from tl_experiments.data.hashing import permutation, random_bits, uniforms


def test_numbers_never_change():
    """Runs of the past are reproduced only while these stay."""
    assert random_bits(np.arange(3), seed=0, stream="order").tolist() == [
        17922652849605540135,
        2991380427627696244,
        7202589279088063781,
    ]
    assert permutation(8, seed=7, stream="order", epoch=2).tolist() == [3, 4, 0, 1, 6, 2, 5, 7]


def test_a_number_depends_on_its_own_index_alone():
    whole = uniforms(np.arange(1000), seed=3, stream="x", epoch=5)
    some = np.array([999, 0, 17])
    np.testing.assert_array_equal(uniforms(some, seed=3, stream="x", epoch=5), whole[some])


def test_seed_stream_and_epoch_each_change_everything():
    indices = np.arange(2000)
    base = uniforms(indices, seed=0, stream="x", epoch=0)
    for other in (
        uniforms(indices, seed=1, stream="x", epoch=0),
        uniforms(indices, seed=0, stream="y", epoch=0),
        uniforms(indices, seed=0, stream="x", epoch=1),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.08


def test_seeds_and_epochs_do_not_stand_in_for_each_other():
    indices = np.arange(10)
    one = random_bits(indices, seed=1, stream="x", epoch=2)
    assert (one != random_bits(indices, seed=2, stream="x", epoch=1)).all()


def test_uniforms_fill_the_unit_interval():
    numbers = uniforms(np.arange(100_000), seed=0, stream="x")
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert abs(counts - 5000).max() < 350


def test_any_integer_is_a_seed():
    for seed in (-1, 2**63, 2**64 + 5):
        assert sorted(permutation(50, seed=seed, stream="x").tolist()) == list(range(50))
