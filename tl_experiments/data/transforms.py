"""From an image to a batch: resized to a square canvas once, then cropped and normalised on the device."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
ENLARGING = "bilinear"
DRAWING = 1  # raise it with any change after which `draw` may give other pixels: kept canvases would stay wrong
_LONGEST = 8  # times the canvas: a line of 1 x 60,000 pixels would need gigabytes if it were resized whole


@dataclass(frozen=True)
class Canvas:
    """The square that is kept of every image: what a centre crop needs, and the margin that augmentation may use.

    Attributes:
        size: side in pixels; the shorter side of the image is resized to it.
        crop: side of the centre crop, at most `size`; the canvas lies so that its centre crop is the image's.
        interpolation: how larger images are shrunk, bilinear or bicubic, antialiased; smaller ones are enlarged
            bilinearly, whatever the backbone's weights were tested with: those tests enlarged nothing.
    """

    size: int
    crop: int
    interpolation: str

    @property
    def num_bytes(self) -> int:
        """What one canvas takes in memory."""
        return 3 * self.size**2


@dataclass(frozen=True)
class Normalise:
    """Mean and standard deviation per channel, of values in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(
        self, images: torch.Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> torch.Tensor:
        """Turn (B, 3, H, W) of 0..255, uint8 or float, into new float32 with the backbone's mean and scale."""
        mean, scale = _constants(self, images.device)
        planes = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True).sub_(mean).mul_(scale)
        return planes.contiguous(memory_format=memory_format)  # last: broadcasting in channels_last is slow on a CPU


@cache
def _constants(normalise: Normalise, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """255 mean and 1 / (255 std), each (3, 1, 1) float32, rounded once."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (normalise.mean, normalise.std))
    return to_device((255 * mean).float(), device), to_device((1 / (255 * std)).float(), device)


def canvas_size(size: int, crop_pct: float) -> int:
    """The side that the shorter side is resized to, so that a centre crop of `size` keeps `crop_pct` of it."""
    return max(size, round(size / crop_pct))


def make_canvas(*, size: int, crop_pct: float, interpolation: str) -> Canvas:
    """The canvas for images of `size` pixels.

    Args:
        size: side of the image that the backbone gets.
        crop_pct: share of the canvas that the centre crop keeps, in (0, 1].
        interpolation: bilinear or bicubic.
    """
    if interpolation not in _RESAMPLING:
        raise ValueError(f"interpolation {interpolation!r}: expected one of {', '.join(_RESAMPLING)}")
    return Canvas(size=canvas_size(size, crop_pct), crop=size, interpolation=interpolation)


def draw(image: Image.Image, canvas: Canvas) -> np.ndarray:
    """Resize the shorter side to the canvas and keep the centre, as torchvision does; returns uint8 (3, C, C)."""
    shorter = min(image.size)
    width, height = (int(canvas.size * side / shorter) for side in image.size)
    left, top = (crop_offset(side, canvas.crop) - crop_offset(canvas.size, canvas.crop) for side in (width, height))
    box = (left, top, left + canvas.size, top + canvas.size)
    if max(width, height) <= _LONGEST * canvas.size:
        drawn = image.resize((width, height), _resampling(image, canvas)).crop(box)
    else:
        drawn = _draw_part(image, box, (image.width / width, image.height / height), canvas)
    return np.ascontiguousarray(np.asarray(drawn).transpose(2, 0, 1))


def _draw_part(
    image: Image.Image, box: tuple[int, int, int, int], scale: tuple[float, float], canvas: Canvas
) -> Image.Image:
    """The same without computing what is cut off, equal up to Pillow's rounding of the box to float32."""
    x, y = scale
    source = (box[0] * x, box[1] * y, min(box[2] * x, image.width), min(box[3] * y, image.height))
    return image.resize((canvas.size, canvas.size), _resampling(image, canvas), box=source)


def _resampling(image: Image.Image, canvas: Canvas) -> Image.Resampling:
    return _RESAMPLING[ENLARGING if min(image.size) < canvas.size else canvas.interpolation]


def crop_offset(length: int, size: int) -> int:
    """Where torchvision's CenterCrop begins."""
    return round((length - size) / 2)


def centre_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of (B, 3, C, C), as a view (B, 3, size, size)."""
    if images.shape[-1] == size:
        return images
    offset = crop_offset(images.shape[-1], size)
    return images[..., offset : offset + size, offset : offset + size]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy without making the host wait: from pageable memory CUDA would first finish its queue."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
