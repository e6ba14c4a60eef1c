"""From an image of any size to the crop that a network sees, as arithmetic on tensors that an exported graph holds."""

from typing import cast

import torch
from torch import nn

from tl_experiments.data.transforms import ENLARGING, Canvas


class GraphDrawing(nn.Module):
    """`data.transforms.draw` and the centre crop for images uint8 (B, H, W, 3) → float32 (B, 3, S, S) of whole numbers.

    Resampling is two products with matrices of Pillow's filters (its Resample.c: a filter is as wide as the image
    shrinks, its weights sum to 1; rows first, rounded to whole numbers after each). The resizes of ONNX and PyTorch
    round once, and fewer runtimes have them. Where nothing is shrunk, pixels are Pillow's; elsewhere up to 1 % of the
    values, which end in one half, are 1 of 255 off. Pillow 13 passes columns first where an image is more than twice
    as tall as wide: there a fifth of them are, as they are between Pillow 12 and 13.
    """

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        self.canvas = canvas

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[1:3]
        shorter = cast(int, torch.sym_min(height, width))  # an int, or what stands for it while tracing
        planes = images.permute(0, 3, 1, 2).float()
        planes = _whole(planes @ self._weights(width, shorter).T)
        return _whole(self._weights(height, shorter) @ planes)

    def _weights(self, length: int, shorter: int) -> torch.Tensor:
        """Return float32 (S, length): the pixels of a side of the image that each pixel of the crop is made of."""
        resized = self.canvas.size * length // shorter
        cut = resized - self.canvas.crop
        first = (cut + cut % 4 // 3) // 2  # round(cut / 2) to even, as `crop_offset`
        kept = torch.arange(self.canvas.crop)[:, None] + first
        # Twice the distance of the centres of two pixels, on a ruler of length x resized: whole numbers, so exact.
        apart = (2 * torch.arange(length) + 1) * resized - (2 * kept + 1) * length
        longer = cast(int, torch.sym_max(length, resized))
        distances = apart.abs().float() / (2 * longer)
        weights = _bilinear(distances)
        if self.canvas.interpolation != ENLARGING:
            enlarges = torch.full((), shorter) < self.canvas.size
            weights = torch.where(enlarges, weights, _bicubic(distances))
        return weights / weights.sum(dim=1, keepdim=True)


def _bilinear(distances: torch.Tensor) -> torch.Tensor:
    return (1 - distances).clamp(min=0)


def _bicubic(distances: torch.Tensor) -> torch.Tensor:
    """Keys 1981 with a = -1/2."""
    near = (1.5 * distances - 2.5) * distances * distances + 1
    far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
    return torch.where(distances < 1, near, torch.where(distances < 2, far, 0.0))


def _whole(values: torch.Tensor) -> torch.Tensor:
    return (values + 0.5).floor().clamp(0, 255)
