"""Two images in one: blended (mixup, Zhang et al. 2018) or one pasted into the other (CutMix, Yun et al. 2019).

As in torchvision's references: each image of a batch is mixed with the one before it, which is any of the split's since
the order is random; one share is drawn for a batch, and where both kinds are on, a coin decides which it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tl_experiments.data.hashing import uniforms


@dataclass(frozen=True)
class Mixed:
    """What was mixed into the images of a batch.

    Attributes:
        labels: (1, B) int64, of the images that were mixed in.
        share: in [0, 1], of each image that was there; the rest is that of the other.
    """

    labels: torch.Tensor
    share: float

    def split(self, count: int) -> "list[Mixed]":
        """Return what was mixed into each of so many parts of the batch."""
        return [Mixed(labels, self.share) for labels in self.labels.tensor_split(count, dim=1)]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How strongly training images are mixed: shares are drawn from Beta(alpha, alpha); 0 is not at all."""

    mixup_alpha: float
    cutmix_alpha: float

    @property
    def is_on(self) -> bool:
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def mix(self, images: torch.Tensor, labels: torch.Tensor, *, seed: int, epoch: int, number: int) -> Mixed | None:
        """Mix a batch in place, on the device that holds it; None where nothing is mixed.

        Args:
            images: float (B, 3, H, W); those that are cut keep the value range of whatever they are.
            labels: (1, B).
            seed: of the run.
            epoch: each epoch draws anew.
            number: of the batch in its epoch; what is drawn depends on these three alone.
        """
        if not self.is_on:
            return None

        def uniform(stream: str) -> float:
            return float(uniforms(np.array([number]), seed=seed, stream=f"mix/{stream}", epoch=epoch)[0])

        cuts = self.cutmix_alpha > 0 and (self.mixup_alpha == 0 or uniform("coin") >= 0.5)
        share = beta(self.cutmix_alpha if cuts else self.mixup_alpha, uniform("share"))
        if cuts:
            share = _paste(images, share=share, uniform=uniform)
        else:
            others = images.roll(1, 0).mul_(1.0 - share)
            images.mul_(share).add_(others)
        return Mixed(labels.roll(1, 1), share)


NO_MIXING = Mixing(mixup_alpha=0.0, cutmix_alpha=0.0)


def beta(alpha: float, uniform: float) -> float:
    """Turn a number that is uniform in [0, 1) into one from Beta(alpha, alpha), by the inverse of its distribution."""
    from scipy.special import betaincinv  # noqa: PLC0415 - it takes a tenth of a second

    return float(betaincinv(alpha, alpha, uniform))


def _paste(images: torch.Tensor, *, share: float, uniform: Callable[[str], float]) -> float:
    """Paste a box of the other image, its middle anywhere; returns the share that is left after what lies outside."""
    height, width = images.shape[2:]
    half = 0.5 * math.sqrt(1.0 - share)
    top, bottom = _interval(height, half, uniform("y"))
    left, right = _interval(width, half, uniform("x"))
    images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].roll(1, 0)
    return 1.0 - (bottom - top) * (right - left) / (height * width)


def _interval(length: int, half: float, middle: float) -> tuple[int, int]:
    place, reach = int(middle * length), int(half * length)
    return max(place - reach, 0), min(place + reach, length)
