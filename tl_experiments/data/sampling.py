"""Which samples an epoch sees, and in which order: a function of (seed, epoch) and of the labels alone."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tl_experiments.data.hashing import permutation, uniforms


@dataclass(frozen=True)
class Order:
    """The places of an epoch.

    Attributes:
        samples: (N,) int64, of each place.
        draws: (N,) int64, distinct: what is random about a place is drawn for this number. It is the sample's own when
            it is seen for the first time, so that one that is seen again in an epoch is seen otherwise.
    """

    samples: np.ndarray
    draws: np.ndarray


class Sampler(Protocol):
    """Chooses as many samples as there are."""

    def __call__(self, labels: np.ndarray, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch of samples with these labels, (N,) int64."""
        ...


def shuffled(labels: np.ndarray, *, seed: int, epoch: int) -> Order:
    """Every sample once."""
    samples = epoch_order(len(labels), seed=seed, epoch=epoch)
    return Order(samples, samples)


def balanced(labels: np.ndarray, *, seed: int, epoch: int) -> Order:
    """Every class that has samples equally often on average, and each of its samples: drawn with replacement."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    places = np.arange(len(labels))

    def below(count: int | np.ndarray, stream: str) -> np.ndarray:
        return (uniforms(places, seed=seed, stream=f"sampler/{stream}", epoch=epoch) * count).astype(np.int64)

    chosen = below(len(counts), "class")
    samples = by_class[starts[chosen] + below(counts[chosen], "sample")]
    return Order(samples, samples + len(labels) * _times_before(samples))


SAMPLERS: dict[str, Sampler] = {"shuffle": shuffled, "balanced": balanced}


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation, (num_samples,) int64, that depends on nothing else."""
    return permutation(num_samples, seed=seed, stream="order", epoch=epoch)


def _times_before(samples: np.ndarray) -> np.ndarray:
    """How often each place's sample has come before it."""
    by_sample = np.argsort(samples, kind="stable")
    grouped = samples[by_sample]
    times = np.empty_like(samples)
    times[by_sample] = np.arange(len(samples)) - np.searchsorted(grouped, grouped)
    return times
