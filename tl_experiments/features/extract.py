"""What a frozen network says of images: each image once, whatever the others are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import Normalise, centre_crop
from tl_experiments.models.folding import folded
from tl_experiments.runtime.precision import Compute


@dataclass(frozen=True)
class View:
    """One of several fixed random views of each image."""

    augmentation: Augmentation
    number: int
    num_views: int

    @property
    def fixed_augmentation(self) -> Augmentation:
        """What, with its number, decides the view; how many there are decides of two that mirror, and of no others."""
        if self.num_views == 2 and self.augmentation.only_mirrors:
            return replace(self.augmentation, hflip_prob=float(self.number))
        return self.augmentation


@dataclass(frozen=True)
class Mirrored:
    """The mirror image of each image's centre crop."""


@dataclass(frozen=True)
class Extractor:
    """A frozen network and how it is run: in eval mode, on batches of one size, the last one padded with zeros.

    Attributes:
        network: images (B, 3, S, S) → (B, ...), on the device.
        size: side of the images.
        normalise: of the network's input.
        compute: where, how and on how many images at once.
    """

    network: nn.Module = field(repr=False)
    size: int
    normalise: Normalise
    compute: Compute

    @torch.no_grad()
    def outputs(
        self,
        images: Images,
        positions: np.ndarray,
        *,
        view: View | Mirrored | None,
        on_progress: Callable[[int, int], None],
    ) -> Iterator[torch.Tensor]:
        """Yield (b, ...) on the device for consecutive positions, in the dtype that the network gives.

        Args:
            images: N canvases.
            positions: (M,) int64 of the images that are wanted.
            view: of these; None is the centre crop.
            on_progress: called with (images done, M).
        """
        device, batch_size = self.compute.device, self.compute.infer_batch_size
        starts = range(0, len(positions), batch_size)
        index_batches = [positions[start : start + batch_size] for start in starts]
        done = 0
        for indices, canvases in zip(index_batches, images.batches(index_batches, device=device), strict=True):
            inputs = self.normalise(self._crops(canvases, images, indices, view), self.compute.memory_format)
            padded = inputs.new_zeros(batch_size, *inputs.shape[1:]).contiguous(
                memory_format=self.compute.memory_format
            )
            padded[: len(inputs)] = inputs
            with self.compute.infer.autocast():
                outputs = self.network(padded)[: len(inputs)]
            yield outputs
            done += len(outputs)
            on_progress(done, len(positions))

    def _crops(
        self, canvases: torch.Tensor, images: Images, indices: np.ndarray, view: View | Mirrored | None
    ) -> torch.Tensor:
        """(B, 3, S, S) in 0..255."""
        if not isinstance(view, View):
            crops = centre_crop(canvases, self.size)
            return crops.flip(-1) if view else crops
        digests = [images.digests[index] for index in indices]
        parameters = view.fixed_augmentation.fixed_view(digests, number=view.number)
        return apply(canvases, parameters, size=self.size)


@torch.no_grad()
def make_extractor(network: nn.Module, *, size: int, normalise: Normalise, compute: Compute) -> Extractor:
    """Freeze a copy of a network for speed; what is folded in the copy is not changed in the original.

    Args:
        network: images (B, 3, S, S) → (B, ...); put into eval mode, on the device and in the layout of `compute`.
        size: S.
        normalise: of the network's input.
        compute: where and how.
    """
    example = torch.zeros(1, 3, size, size, device=compute.device).contiguous(memory_format=compute.memory_format)
    example += torch.linspace(-2, 2, size, device=compute.device)  # shades, so that no layer sees a constant
    return Extractor(network=folded(network.eval(), example), size=size, normalise=normalise, compute=compute)
