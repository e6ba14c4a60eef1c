"""Batches on the device, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.canvases import split_on_device
from tl_experiments.data.hashing import permutation
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import Normalise, centre_crop


@dataclass(frozen=True)
class Batch:
    """One step's samples, on the device.

    Attributes:
        inputs: images float32 (B, 3, S, S), or features (K, B, D) of K members, or activations (1, B, ...).
        labels: (K, B) int64; K = 1 for images.
        mirrored: inputs of the same samples' mirror images; None where they are not looked at.
        sample_dim: of the inputs that counts samples: 0 for images, 1 for features.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    sample_dim: int = 0
    mirrored: torch.Tensor | None = None

    @property
    def num_samples(self) -> int:
        return self.labels.shape[1]

    def split(self, count: int) -> "list[Batch]":
        """Return the samples in so many batches, in order, whose sizes differ by one at most."""
        inputs = self.inputs.tensor_split(count, dim=self.sample_dim)
        labels = self.labels.tensor_split(count, dim=1)
        return [Batch(*part, self.sample_dim) for part in zip(inputs, labels, strict=True)]


class Batches(Protocol):
    """The samples of a split, epoch by epoch."""

    @property
    def num_samples(self) -> int:
        """Samples that an epoch yields, of each member."""
        ...

    def __len__(self) -> int:
        """Steps of an epoch."""
        ...

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch but the first `skip`, which are not even made."""
        ...


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: a permutation, (num_samples,) int64, that depends on nothing else."""
    return permutation(num_samples, seed=seed, stream="order", epoch=epoch)


def split_into_batches(order: np.ndarray, *, batch_size: int, drop_single: bool) -> list[np.ndarray]:
    """Cut the last axis of an order into batches.

    Args:
        order: (..., N) sample indices.
        batch_size: of all batches but the last.
        drop_single: leave out a trailing batch of one sample when there are others: BatchNorm cannot normalise it.
    """
    num_samples = order.shape[-1]
    if drop_single and num_samples > batch_size > 1 and num_samples % batch_size == 1:
        num_samples -= 1
    return [order[..., start : min(start + batch_size, num_samples)] for start in range(0, num_samples, batch_size)]


@dataclass(frozen=True, kw_only=True)
class ImageBatches:
    """Images of a split: cropped, augmented and normalised on the device.

    Attributes:
        images: decoded, or decoded again in every epoch.
        size: side of the images that are yielded.
        normalise: mean and scale.
        batch_size: at least 1.
        device: where the batches are made.
        seed: of order and augmentation; None yields all in order, unchanged.
        augmentation: with `hflip_prob` decided; None, or one that is not random, gives centre crops.
        memory_format: of the inputs.
        mirrors: yield the mirror images too, beside images that are in order and unchanged.
    """

    images: Images = field(repr=False)
    size: int
    normalise: Normalise
    batch_size: int
    device: torch.device
    seed: int | None = None
    augmentation: Augmentation | None = None
    memory_format: torch.memory_format = torch.contiguous_format
    mirrors: bool = False

    @property
    def num_samples(self) -> int:
        return sum(len(indices) for indices in self._index_batches(np.arange(len(self.images))))

    def __len__(self) -> int:
        return len(self._index_batches(np.arange(len(self.images))))

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield (B, 3, size, size) float32 with labels (1, B); epochs of the same number are equal bit for bit."""
        if self.seed is None:
            order = np.arange(len(self.images))
        else:
            order = epoch_order(len(self.images), seed=self.seed, epoch=epoch)
        index_batches = self._index_batches(order)[skip:]
        canvas_batches = self.images.batches(index_batches, device=self.device)
        label_batches = split_on_device(self.images.labels, index_batches, device=self.device)
        for indices, canvases, labels in zip(index_batches, canvas_batches, label_batches, strict=True):
            views = self._views(canvases, indices, epoch)
            yield Batch(
                inputs=self.normalise(views, self.memory_format),
                labels=labels[None],
                mirrored=self.normalise(views.flip(-1), self.memory_format) if self.mirrors else None,
            )

    def _views(self, canvases: torch.Tensor, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """(B, 3, size, size) in 0..255: augmented, or the centre."""
        if self.seed is None or self.augmentation is None or not self.augmentation.is_random:
            return centre_crop(canvases, self.size)
        return apply(canvases, self.augmentation.parameters(indices, seed=self.seed, epoch=epoch), size=self.size)

    def _index_batches(self, order: np.ndarray) -> list[np.ndarray]:
        return split_into_batches(order, batch_size=self.batch_size, drop_single=self.seed is not None)
