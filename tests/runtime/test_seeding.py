"""Seeds are pure functions of what they are for; a step's random numbers depend on (seed, step) alone."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from tl_experiments.runtime.seeding import derive_seed, seed_step


def test_a_seed_is_the_same_today_and_tomorrow() -> None:
    """Another value here means that no earlier run can be repeated."""
    assert derive_seed(0, "head") == 5948522848898280794
    assert derive_seed(2**63 - 1, "step", 12) == derive_seed(2**63 - 1, "step", 12)


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**9))
def test_seeds_are_in_the_range_that_every_generator_takes(seed: int, step: int) -> None:
    derived = derive_seed(seed, "step", step)
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)


def test_no_two_purposes_share_a_seed() -> None:
    seeds = [derive_seed(seed, *what) for seed, what in product(range(50), [("head",), ("step", 0), ("step", 1), ()])]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(1, "step", 11) != derive_seed(11, "step", 1) != derive_seed(1, "step1", 1)


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    def draw(seed: int, step: int) -> list[float]:
        seed_step(seed, step)
        return torch.rand(4).tolist()

    first = draw(0, 3)
    torch.rand(100)
    assert draw(0, 3) == first
    assert len({tuple(draw(seed, step)) for seed, step in product(range(4), range(4))}) == 16
