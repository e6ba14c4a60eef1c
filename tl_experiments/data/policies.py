"""Augmentations that do more than crop and mirror: operations drawn from a space, after the crop."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.op_spaces import RANDOM, TRIVIAL, Ops, Space


@dataclass(frozen=True)
class TrivialAugment(Augmentation):
    """One operation of any strength for each image (Müller and Hutter 2021, the wide space)."""

    space: ClassVar[Space | None] = TRIVIAL

    def ops(self, indices: np.ndarray, *, seed: int, epoch: int) -> Ops:
        return TRIVIAL.draw(indices, num_ops=1, seed=seed, epoch=epoch)


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """Some operations of one strength for each image (Cubuk et al. 2020).

    Attributes:
        num_ops: one after the other, at least 1; the same may come twice.
        magnitude: their strength, in 0..30.
    """

    num_ops: int
    magnitude: int
    space: ClassVar[Space | None] = RANDOM

    def ops(self, indices: np.ndarray, *, seed: int, epoch: int) -> Ops:
        return RANDOM.draw(indices, num_ops=self.num_ops, strength=self.magnitude, seed=seed, epoch=epoch)
