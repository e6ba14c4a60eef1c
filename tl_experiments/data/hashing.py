"""Randomness without a generator: every number is a hash (splitmix64) of what it belongs to, so order never matters."""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64-bit words; arithmetic wraps."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _start(*, seed: int, stream: str, epoch: int) -> np.ndarray:
    """One word that depends on seed, stream and epoch, in an array of one: numpy wraps arrays without a warning."""
    words = (seed, int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little"), epoch)
    state = np.zeros(1, dtype=np.uint64)
    for word in words:
        state = _mix((state ^ np.array([word & _MASK], dtype=np.uint64)) + _GOLDEN)
    return state


def random_bits(indices: np.ndarray, *, seed: int, stream: str, epoch: int = 0) -> np.ndarray:
    """Hash each index.

    Args:
        indices: (N,) integers >= 0.
        seed: any integer; taken modulo 2**64.
        stream: what the numbers are for; two streams are independent.
        epoch: the pass over the data that the numbers are for.

    Returns:
        (N,) uint64; entry i depends on `indices[i]`, seed, stream and epoch alone.
    """
    return _mix(_start(seed=seed, stream=stream, epoch=epoch) + (indices.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniforms(indices: np.ndarray, *, seed: int, stream: str, epoch: int = 0) -> np.ndarray:
    """Hash each index to a float64 in [0, 1)."""
    return (random_bits(indices, seed=seed, stream=stream, epoch=epoch) >> np.uint64(11)) * 2.0**-53


def permutation(num_items: int, *, seed: int, stream: str, epoch: int = 0) -> np.ndarray:
    """Shuffle 0..num_items-1; returns (num_items,) int64."""
    return np.argsort(random_bits(np.arange(num_items), seed=seed, stream=stream, epoch=epoch), kind="stable")
