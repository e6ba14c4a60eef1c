"""Batches on the device, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.canvases import split_on_device
from tl_experiments.data.images import Images
from tl_experiments.data.mixing import NO_MIXING, Mixed, Mixing
from tl_experiments.data.sampling import Order, Sampler, shuffled
from tl_experiments.data.transforms import Normalise, centre_crop


@dataclass(frozen=True)
class Batch:
    """One step's samples, on the device.

    Attributes:
        inputs: images float32 (B, 3, S, S), or features (K, B, D) of K members, or activations (1, B, ...).
        labels: (K, B) int64; K = 1 for images.
        sample_dim: of the inputs that counts samples: 0 for images, 1 for features.
        mixed: into each image; None where images are whole.
        mirrored: inputs of the same samples' mirror images; None where they are not looked at.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    sample_dim: int = 0
    mixed: Mixed | None = None
    mirrored: torch.Tensor | None = None

    @property
    def num_samples(self) -> int:
        return self.labels.shape[1]

    @property
    def dominant_labels(self) -> torch.Tensor:
        """(K, B) int64, of the image that has the larger share."""
        return self.mixed.labels if self.mixed is not None and self.mixed.share < 0.5 else self.labels

    def split(self, count: int) -> "list[Batch]":
        """Return the samples in so many batches, in order, whose sizes differ by one at most."""
        inputs = self.inputs.tensor_split(count, dim=self.sample_dim)
        labels = self.labels.tensor_split(count, dim=1)
        mixed = self.mixed.split(count) if self.mixed is not None else [None] * count
        parts = zip(inputs, labels, mixed, strict=True)
        return [Batch(own, of_them, self.sample_dim, others) for own, of_them, others in parts]


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
    """Images of a split: cropped, augmented, normalised and mixed on the device.

    Attributes:
        images: decoded, or decoded again in every epoch.
        size: side of the images that are yielded.
        normalise: mean and scale.
        batch_size: at least 1.
        device: where the batches are made.
        seed: of order, augmentation and mixing; None yields all in order, unchanged.
        augmentation: with `hflip_prob` decided; None, or one that is not random, gives centre crops.
        memory_format: of the inputs.
        sampler: chooses what an epoch sees.
        mixing: of the images of a batch.
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
    sampler: Sampler = shuffled
    mixing: Mixing = NO_MIXING
    mirrors: bool = False

    @property
    def num_samples(self) -> int:
        return sum(len(indices) for indices in self._index_batches(np.arange(len(self.images))))

    def __len__(self) -> int:
        return len(self._index_batches(np.arange(len(self.images))))

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield (B, 3, size, size) float32 with labels (1, B); epochs of the same number are equal bit for bit."""
        order = self._order(epoch)
        index_batches, draw_batches = (self._index_batches(part)[skip:] for part in (order.samples, order.draws))
        canvas_batches = self.images.batches(index_batches, device=self.device)
        label_batches = split_on_device(self.images.labels, index_batches, device=self.device)
        made = zip(draw_batches, canvas_batches, label_batches, strict=True)
        for number, (draws, canvases, own) in enumerate(made, start=skip):
            views, labels = self._views(canvases, draws, epoch), own[None]
            inputs = self.normalise(views, self.memory_format)
            yield Batch(
                inputs,
                labels,
                mixed=self._mixed(inputs, labels, epoch=epoch, number=number),
                mirrored=self.normalise(views.flip(-1), self.memory_format) if self.mirrors else None,
            )

    def _order(self, epoch: int) -> Order:
        if self.seed is None:
            every = np.arange(len(self.images))
            return Order(every, every)
        return self.sampler(self.images.labels.numpy(), seed=self.seed, epoch=epoch)

    def _mixed(self, inputs: torch.Tensor, labels: torch.Tensor, *, epoch: int, number: int) -> Mixed | None:
        if self.seed is None:
            return None
        return self.mixing.mix(inputs, labels, seed=self.seed, epoch=epoch, number=number)

    def _views(self, canvases: torch.Tensor, draws: np.ndarray, epoch: int) -> torch.Tensor:
        """(B, 3, size, size) in 0..255: augmented, or the centre."""
        if self.seed is None or self.augmentation is None or not self.augmentation.is_random:
            return centre_crop(canvases, self.size)
        return apply(canvases, self.augmentation.parameters(draws, seed=self.seed, epoch=epoch), size=self.size)

    def _index_batches(self, order: np.ndarray) -> list[np.ndarray]:
        return split_into_batches(order, batch_size=self.batch_size, drop_single=self.seed is not None)
