"""Features of a frozen backbone: every image of a split, once."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tl_experiments.data.images import Images
from tl_experiments.data.transforms import Normalise, centre_crop, to_device
from tl_experiments.runtime.precision import Precision


def extract_features(
    backbone: nn.Module,
    images: Images,
    *,
    size: int,
    batch_size: int,
    normalise: Normalise,
    precision: Precision,
    memory_format: torch.memory_format,
    on_progress: Callable[[int, int], None],
) -> torch.Tensor:
    """Run the backbone over the centre crops of a split.

    The last batch is padded, so that the features of an image do not depend on how many others there are.

    Args:
        backbone: images (B, 3, S, S) → features (B, D); put into eval mode, on its own device.
        images: N canvases.
        size: side of the crops.
        batch_size: images at once.
        normalise: of the backbone.
        precision: of the backbone's layers.
        memory_format: of the images.
        on_progress: called with (images done, N).

    Returns:
        (N, D) float32, on the backbone's device, usable by autograd.
    """
    backbone.eval()
    device = next(backbone.parameters()).device
    num_images = len(images)
    index_batches = [
        np.arange(start, min(start + batch_size, num_images)) for start in range(0, num_images, batch_size)
    ]
    features: list[torch.Tensor] = []
    done = 0
    for canvases in images.batches(index_batches):
        crops = normalise(centre_crop(to_device(canvases, device), size))
        padded = crops.new_zeros(batch_size, *crops.shape[1:]).contiguous(memory_format=memory_format)
        padded[: len(crops)] = crops
        with torch.no_grad(), precision.autocast():
            features.append(backbone(padded)[: len(crops)].float())
        done += len(crops)
        on_progress(done, num_images)
    return torch.cat(features)
