"""What frozen stages say of a split: computed once, and kept on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from tl_experiments.data.images import Images
from tl_experiments.data.watch import Work
from tl_experiments.features.extract import Extractor, Mirrored, View
from tl_experiments.runtime.precision import Compute


def activations(
    extractor: Extractor, images: Images, *, work: Work, view: View | Mirrored | None = None
) -> torch.Tensor:
    """Return the activations of all images, (N, ...) on the device, in the dtype that the network gives.

    Several processes share the work.

    Args:
        extractor: of the frozen stages.
        images: N canvases.
        work: given a title, returns a callback (images done, images).
        view: of the images; None is the centre crop.

    Raises:
        DataError: an image cannot be decoded.
    """
    if images.fit:
        # From the cache of images, where they are there.
        images.decode(device=extractor.compute.device, work=work, ranks=extractor.compute.ranks)
    on_progress = work(f"extracting activations of {len(images):,} {images.split} images{', mirrored' if view else ''}")
    ranks = extractor.compute.ranks
    own = ranks.places(0, len(images))
    seen = own if len(own) else np.arange(1)  # the shape is told by an image, be it another process's
    chunks = extractor.outputs(images, seen, view=view, on_progress=on_progress)
    first = next(chunks)[: len(own)]
    rows = first.new_empty(len(own), *first.shape[1:])  # in one piece: a list of chunks would need twice the memory
    rows[: len(first)] = first
    start = len(first)
    for chunk in chunks:
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)
    return ranks.gather(rows, count=len(images))


@torch.no_grad()
def activations_bytes(network: nn.Module, splits: Sequence[Images], *, size: int, compute: Compute) -> int:
    """Return how many bytes the activations of all images of some splits take.

    Args:
        network: of the frozen stages, in eval mode.
        splits: of the images.
        size: of these, as the network gets them.
        compute: where and in what it runs.
    """
    with compute.infer.autocast():
        one = network(torch.zeros(1, 3, size, size, device=compute.device))
    return one.nbytes * sum(len(images) for images in splits)
