"""Operations on colours, each on those samples of a batch that get it, on the device that holds them.

Images are float32 (n, 3, H, W) with whole numbers in 0..255; so are the results, which are those of torchvision's uint8
kernels within one grey level. Sums are of whole numbers and there is nothing fused, so that a sample's bits depend on
neither its neighbours nor the device.
"""

from collections.abc import Callable

import numpy as np
import torch

from tl_experiments.data.op_spaces import OPS, Ops
from tl_experiments.data.transforms import to_device


def change_colours(images: torch.Tensor, ops: Ops) -> None:
    """Do all rounds of operations on colours, in order and in place; the others are left out.

    Args:
        images: (N, 3, S, S) float32, whole numbers in 0..255.
        ops: of the N samples.
    """
    for op, magnitude in zip(ops.op, ops.magnitudes(images.shape[-1]), strict=True):
        _one_round(images, op, magnitude)


def _one_round(images: torch.Tensor, op: np.ndarray, magnitude: np.ndarray) -> None:
    """Sort the samples by their operation: the host knows how many get which, and never waits for the device."""
    order = np.argsort(op, kind="stable")
    ends = np.cumsum(np.bincount(op, minlength=len(OPS)))
    positions = to_device(torch.from_numpy(order), images.device)
    magnitudes = to_device(torch.from_numpy(magnitude[order].astype(np.float32)), images.device).view(-1, 1, 1, 1)
    for name, start, end in zip(OPS, [0, *ends[:-1]], ends, strict=True):
        if name in _CHANGES and start < end:
            chosen = positions[start:end]
            images.index_copy_(0, chosen, _CHANGES[name](images[chosen], magnitudes[start:end]))


def _blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """So much of the images, and the rest of the other, cut off to whole numbers as PIL does."""
    return ((images - other) * factor + other).clamp_(0, 255).floor_()


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(n, 1, H, W) whole numbers, by the weights of ITU-R 601."""
    red, green, blue = images.split(1, dim=1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114).floor_()


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (images * factor).clamp_(0, 255).floor_()


def color(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blend(images, _grey(images), factor)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    grey = _grey(images)
    total = grey.long().sum(dim=(1, 2, 3), keepdim=True)  # of floats it would depend on the size of the batch
    return _blend(images, total.float() / grey[0].numel(), factor)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from, or towards, PIL's SMOOTH: a mean of 3 x 3 in which the middle counts five times; the rim stays."""
    if min(images.shape[-2:]) < 3:
        return images
    middle = images[..., 1:-1, 1:-1]
    columns = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:] + 4 * middle
    sharpened = images.clone()
    sharpened[..., 1:-1, 1:-1] = _blend(middle, (total / 13).round_(), factor)
    return sharpened


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    dropped = (8 - bits).int()
    return ((images.int() >> dropped) << dropped).float()


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    return torch.where(images >= threshold, 255 - images, images)


def autocontrast(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Spread each channel over 0..255; one of a single value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    spread = ((images - low) * 255 / (high - low).clamp(min=1)).floor_()
    return torch.where(high > low, spread, images)


def equalize(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Make each channel's histogram flat by PIL's table, in which the brightest value that occurs does not count."""
    levels = images.flatten(2).long()
    histogram = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    step = (levels.shape[2] - histogram.gather(2, levels.amax(dim=2, keepdim=True))) // 255
    darker = histogram.cumsum(dim=2) - histogram
    table = ((darker + step // 2) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))  # too few values: all stay
    return table.float().gather(2, levels).view_as(images)


_CHANGES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    change.__name__: change
    for change in (brightness, color, contrast, sharpness, posterize, solarize, autocontrast, equalize)
}
