"""Random views of training images: parameters hashed from (seed, epoch, sample), applied to whole batches.

All that moves pixels is one affine map, so that an image is sampled once; colours change after it, boxes go last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from tl_experiments.data.colours import change_colours
from tl_experiments.data.erasing import Boxes, draw_boxes, erase
from tl_experiments.data.hashing import uniforms
from tl_experiments.data.op_spaces import Ops, Space
from tl_experiments.data.transforms import crop_offset, to_device

_CACHED_PIXELS = 2 * 224**2  # of the views that a CPU samples at a time


@dataclass(frozen=True)
class Parameters:
    """What is done to each of N samples; every array is (N,) float64.

    Attributes:
        mirror: -1 where the image is mirrored, else 1.
        angle: rotation in radians.
        width, height: sides of the crop, as a share of the size of the output.
        x, y: place of the crop, from -1 (left, top) to 1; 0 is the centre.
        ops: of a policy, after the crop and the mirror; None where there is no policy.
        boxes: that are erased at last; None where nothing ever is.
    """

    mirror: np.ndarray
    angle: np.ndarray
    width: np.ndarray
    height: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ops: Ops | None = None
    boxes: Boxes | None = None


@dataclass(frozen=True)
class Augmentation:
    """How far training images may be changed.

    Attributes:
        hflip_prob: chance of a mirror image; None is 0.5, or 0 where a mirrored image is another class.
        rotation_degrees: angles are uniform in plus or minus this.
        scale: smallest and largest area of the crop, as a share of the centre crop's.
        ratio: smallest and largest width of the crop over its height.
        erase_prob: chance that a box of the image is erased.
    """

    hflip_prob: float | None
    rotation_degrees: float
    scale: Sequence[float]
    ratio: Sequence[float]
    erase_prob: float
    space: ClassVar[Space | None] = None  # of the operations that a policy draws from

    @property
    def crops(self) -> bool:
        """A crop of full size stays in the centre; others are placed anywhere on the canvas."""
        return tuple(self.scale) != (1.0, 1.0) or tuple(self.ratio) != (1.0, 1.0)

    @property
    def is_random(self) -> bool:
        return self.hflip_prob != 0 or self._does_more_than_mirror

    @property
    def only_mirrors(self) -> bool:
        """Whether there are two views in all, each for half of the images."""
        return self.hflip_prob == 0.5 and not self._does_more_than_mirror

    @property
    def _does_more_than_mirror(self) -> bool:
        return self.rotation_degrees != 0 or self.crops or self.erase_prob != 0 or self.space is not None

    def resolved(self, *, mirror_safe: bool) -> "Augmentation":
        """The same with `hflip_prob` decided for a dataset."""
        if self.hflip_prob is not None:
            return self
        return replace(self, hflip_prob=0.5 if mirror_safe else 0.0)

    def parameters(self, indices: np.ndarray, *, seed: int, epoch: int) -> Parameters:
        """Draw for each sample.

        Args:
            indices: (N,) sample indices within the split; what a sample gets does not depend on the others.
            seed: of the run.
            epoch: each epoch draws anew.
        """
        if self.hflip_prob is None:
            raise ValueError("hflip_prob is undecided: call resolved() first")

        def uniform(stream: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
            return low + (high - low) * uniforms(indices, seed=seed, stream=f"augment/{stream}", epoch=epoch)

        centre = np.zeros(len(indices))
        side = np.sqrt(uniform("scale", self.scale[0], self.scale[1]))
        ratio = np.exp(uniform("ratio", math.log(self.ratio[0]), math.log(self.ratio[1])) / 2)
        limit = math.radians(self.rotation_degrees)
        return Parameters(
            mirror=np.where(uniform("mirror") < self.hflip_prob, -1.0, 1.0),
            angle=uniform("angle", -limit, limit),
            width=side * ratio,
            height=side / ratio,
            x=uniform("x", -1, 1) if self.crops else centre,
            y=uniform("y", -1, 1) if self.crops else centre,
            ops=self.ops(indices, seed=seed, epoch=epoch),
            boxes=draw_boxes(indices, prob=self.erase_prob, seed=seed, epoch=epoch) if self.erase_prob else None,
        )

    def ops(self, indices: np.ndarray, *, seed: int, epoch: int) -> Ops | None:  # noqa: ARG002 - for policies
        """Draw a policy's operations for each sample, from its `space`; here there is none."""
        return None

    def fixed_view(self, digests: Sequence[str], *, number: int) -> Parameters:
        """Return one of the views that a run which caches them chooses from.

        Args:
            digests: of the images' contents, in hexadecimal; all that a view depends on, so that runs share it.
            number: of the view, from 0.
        """
        contents = np.array([int(digest[:15], 16) for digest in digests], dtype=np.int64)
        return self.parameters(contents, seed=0, epoch=number)


def apply(canvases: torch.Tensor, parameters: Parameters, *, size: int) -> torch.Tensor:
    """Crop, mirror and move in one bilinear sampling, then change colours and erase, on the device of the images.

    Args:
        canvases: (B, 3, C, C), uint8 or float in 0..255.
        parameters: of the B samples.
        size: side of the output; parameters that change nothing give the centre crop of this size.

    Returns:
        float32 (B, 3, size, size) in 0..255, whole numbers under a policy; beyond the canvas its reflection is seen.
    """
    theta = torch.from_numpy(_affine(parameters, canvas=canvases.shape[-1], size=size).astype(np.float32))
    views = _sample(canvases, to_device(theta, canvases.device), size)
    if parameters.ops is not None:
        change_colours(views.round_(), parameters.ops)
    if parameters.boxes is not None:
        erase(views, parameters.boxes)
    return views


def _sample(canvases: torch.Tensor, theta: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 3, size, size) float32; on a CPU a few images at a time, whose grids and copies stay in its caches."""
    count = max(1, _CACHED_PIXELS // size**2) if canvases.device.type == "cpu" else len(canvases)
    views = torch.empty(len(canvases), 3, size, size, device=canvases.device)
    for few, maps, place in zip(canvases.split(count), theta.split(count), views.split(count), strict=True):
        sampled = F.grid_sample(
            few.float(), _grid(maps, size), mode="bilinear", padding_mode="reflection", align_corners=False
        )
        place.copy_(sampled)
    return views


def _grid(theta: torch.Tensor, size: int) -> torch.Tensor:
    """(B, size, size, 2), as `F.affine_grid` has it, by one sum instead of a product of matrices for each image."""
    centres = torch.arange(1 - size, size, 2, dtype=torch.float32, device=theta.device) / size
    across = theta[:, None, None, :, 0] * centres[:, None]
    down = theta[:, None, None, :, 1] * centres[:, None, None] + theta[:, None, None, :, 2]
    return across + down


def _affine(parameters: Parameters, *, canvas: int, size: int) -> np.ndarray:
    """(N, 2, 3) maps from output to canvas coordinates, both in -1..1: a policy's, mirror, scale, rotate, move."""
    width, height = (np.minimum(side * size / canvas, 1.0) for side in (parameters.width, parameters.height))
    middle = (2 * crop_offset(canvas, size) + size) / canvas - 1  # half a pixel off 0 when the margin is odd
    x, y = (1 - width) * parameters.x + middle, (1 - height) * parameters.y + middle
    cos, sin = np.cos(parameters.angle), np.sin(parameters.angle)
    rows = [
        [width * cos * parameters.mirror, -height * sin, x],
        [width * sin * parameters.mirror, height * cos, y],
    ]
    maps = np.moveaxis(np.array(rows), -1, 0)
    return maps if parameters.ops is None else maps @ parameters.ops.geometry(size)
