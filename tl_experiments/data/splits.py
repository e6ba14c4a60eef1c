"""Seeded, stratified, nested choices of indices; each class is shuffled by itself, so one class never moves another."""

import numpy as np

from tl_experiments.data.hashing import permutation
from tl_experiments.runtime.errors import DataError, SettingError


def hold_out(
    labels: np.ndarray, *, fraction: float, seed: int, split: str, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..N-1 in two, class by class; both sides get at least one image of each class.

    Args:
        labels: (N,) int64; every class of `class_names` occurs.
        fraction: share that is held out, in (0, 1).
        seed: the split is a function of the labels, the seed and `split`.
        split: name of the held-out split, `val` or `test`.
        class_names: one per label, for the message.

    Returns:
        kept and held-out positions, both ascending int64.

    Raises:
        SettingError: the fraction is outside (0, 1).
        DataError: a class has fewer than two images.
    """
    if not 0 < fraction < 1:
        raise SettingError(f"dataset.{split}_fraction={fraction}: expected a fraction between 0 and 1, both excluded")
    held = np.zeros(len(labels), dtype=bool)
    for label, members in enumerate(_by_class(labels, len(class_names))):
        if len(members) < 2:
            raise DataError(
                f"class {class_names[label]!r} has too few images to split off a {split} set "
                f"(found {len(members)}): add images, or provide a {split} set yourself"
            )
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        held[members[permutation(len(members), seed=seed, stream=f"{split}/{label}")[:count]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def limit_train_size(labels: np.ndarray, *, train_size: int | float | None, seed: int, num_classes: int) -> np.ndarray:
    """Choose a stratified part of the training images; a smaller choice is a subset of every larger one.

    Args:
        labels: (N,) int64; every one of the `num_classes` classes occurs.
        train_size: a count from `num_classes` to N, a float in (0, 1], or None for all.
        seed: the choice is a function of the labels, the size and the seed.
        num_classes: at least one image of each class is chosen.

    Returns:
        ascending int64 positions.

    Raises:
        SettingError: the size is out of range.
    """
    if train_size is None:
        return np.arange(len(labels))
    count = _count(train_size, num_images=len(labels), num_classes=num_classes)
    return np.sort(_nested_order(labels, seed=seed, num_classes=num_classes)[:count])


def _count(train_size: int | float, *, num_images: int, num_classes: int) -> int:
    if isinstance(train_size, float):
        if not 0 < train_size <= 1:
            raise SettingError(f"dataset.train_size={train_size}: expected a fraction in (0, 1], a count, or null")
        return max(num_classes, round(train_size * num_images))
    if not num_classes <= train_size <= num_images:
        raise SettingError(
            f"dataset.train_size={train_size}: expected a count from {num_classes} (one per class) to {num_images} "
            "(the training images without the val split), a fraction in (0, 1], or null"
        )
    return train_size


def _nested_order(labels: np.ndarray, *, seed: int, num_classes: int) -> np.ndarray:
    """Every position once, such that each prefix is stratified: one of each class, then in equal shares."""
    share = np.empty(len(labels))
    for label, members in enumerate(_by_class(labels, num_classes)):
        ranks = np.arange(len(members))
        shares = np.where(ranks == 0, -1.0, (ranks + 0.5) / max(1, len(members)))
        share[members[permutation(len(members), seed=seed, stream=f"train_size/{label}")]] = shares
    class_rank = permutation(num_classes, seed=seed, stream="train_size")
    return np.lexsort((class_rank[labels], share))


def _by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The positions of each class, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, num_classes)))
