"""Random erasing (Zhong et al. 2020): a rectangle of noise, in which every pixel is a hash as well."""

from dataclasses import dataclass

import numpy as np
import torch

from tl_experiments.data.hashing import random_bits, uniforms
from tl_experiments.data.transforms import to_device

AREA = (0.02, 0.4)  # of the image, uniform; the paper's s_l and s_h
RATIO = (0.3, 1 / 0.3)  # height over width, log-uniform; the paper's r_1 and r_2
_GOLDEN = 0x9E3779B9 - 2**32  # as int32


@dataclass(frozen=True)
class Boxes:
    """What is erased of each of N samples; every array is (N,).

    Attributes:
        height, width: float64, as shares of the image's sides; 0 where nothing is erased.
        y, x: float64 in [0, 1), the place among those at which the box is inside.
        noise: int64 in -2^31..2^31 - 1, which every pixel of the box is hashed with.
    """

    height: np.ndarray
    width: np.ndarray
    y: np.ndarray
    x: np.ndarray
    noise: np.ndarray

    def pixels(self, size: int) -> np.ndarray:
        """(N, 4) int64: top, bottom, left and right in images of `size` pixels; at least one pixel, and inside."""
        height, width = (np.clip(np.round(side * size), 1, size) for side in (self.height, self.width))
        top, left = np.floor(self.y * (size - height + 1)), np.floor(self.x * (size - width + 1))
        return np.stack([top, top + height, left, left + width], axis=1).astype(np.int64)


def draw_boxes(indices: np.ndarray, *, prob: float, seed: int, epoch: int) -> Boxes:
    """Draw for each sample.

    The paper draws area and ratio again until the box fits. Here the ratio is drawn from those that fit the area.

    Args:
        indices: (N,) sample indices; what a sample gets does not depend on the others.
        prob: that anything is erased, in [0, 1].
        seed: of the run.
        epoch: each epoch draws anew.
    """

    def uniform(stream: str) -> np.ndarray:
        return uniforms(indices, seed=seed, stream=f"augment/erase/{stream}", epoch=epoch)

    area = AREA[0] + (AREA[1] - AREA[0]) * uniform("area")
    low, high = np.log(np.maximum(RATIO[0], area)), np.log(np.minimum(RATIO[1], 1 / area))
    ratio = np.exp(low + (high - low) * uniform("ratio"))
    area = np.where(uniform("erase") < prob, area, 0.0)
    noise = random_bits(indices, seed=seed, stream="augment/erase/noise", epoch=epoch).view(np.int64) >> 32
    return Boxes(
        height=np.sqrt(area * ratio),
        width=np.sqrt(area / ratio),
        y=uniform("y"),
        x=uniform("x"),
        noise=noise,
    )


def erase(images: torch.Tensor, boxes: Boxes) -> None:
    """Fill the boxes with uniform noise of 0..255, in place.

    Before normalising: the noise is the paper's, in grey levels, whatever the backbone's mean is.

    Args:
        images: (N, 3, S, S) float32 in 0..255.
        boxes: of the N samples.
    """
    size, erased = images.shape[-1], np.flatnonzero(boxes.height)
    if not len(erased):
        return
    numbers = np.column_stack([erased, boxes.noise[erased], boxes.pixels(size)[erased]])
    chosen, noise, top, bottom, left, right = to_device(torch.from_numpy(numbers), images.device).unbind(dim=1)
    place = torch.arange(size, device=images.device)
    rows = (place >= top[:, None]) & (place < bottom[:, None])
    columns = (place >= left[:, None]) & (place < right[:, None])
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    images.index_copy_(0, chosen, torch.where(inside, _noise(noise, size), images[chosen]))


def _noise(words: torch.Tensor, size: int) -> torch.Tensor:
    """(n, 3, size, size) float32: 32 hashed bits a pixel (lowbias32 of C. Wellons), 8 of them a channel.

    In int32, which wraps as the hash wants, and is several times as fast as int64 on a CPU; shifts fill with the sign.
    """
    state = torch.arange(size * size, dtype=torch.int32, device=words.device) * _GOLDEN + words[:, None].int()
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        state = (state ^ (state >> shift) & (1 << 32 - shift) - 1) * factor
    state = state ^ (state >> 16) & 0xFFFF
    channels = [(state >> shift & 0xFF).float() for shift in (0, 8, 16)]
    return torch.stack(channels, dim=1).view(-1, 3, size, size)
