"""Batches on the device, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.hashing import permutation
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import Normalise, centre_crop, to_device


@dataclass(frozen=True)
class Batch:
    """One step's samples, on the device.

    Attributes:
        inputs: images float32 (B, 3, S, S), or features (K, B, D) of K members.
        labels: (K, B) int64; K = 1 for images.
    """

    inputs: torch.Tensor
    labels: torch.Tensor


class Batches(Protocol):
    """The samples of a split, epoch by epoch."""

    @property
    def num_samples(self) -> int:
        """Samples that an epoch yields, of each member."""
        ...

    def __len__(self) -> int:
        """Steps of an epoch."""
        ...

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


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
        images: the canvases.
        size: side of the images that are yielded.
        normalise: mean and scale.
        batch_size: at least 1.
        device: where the batches are made.
        seed: of order and augmentation; None yields all in order, unchanged.
        augmentation: with `hflip_prob` decided; None, or one that is not random, gives centre crops.
        memory_format: of the inputs.
    """

    images: Images = field(repr=False)
    size: int
    normalise: Normalise
    batch_size: int
    device: torch.device
    seed: int | None = None
    augmentation: Augmentation | None = None
    memory_format: torch.memory_format = torch.contiguous_format

    @property
    def num_samples(self) -> int:
        return sum(len(indices) for indices in self._index_batches(np.arange(len(self.images))))

    def __len__(self) -> int:
        return len(self._index_batches(np.arange(len(self.images))))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield (B, 3, size, size) float32 with labels (1, B); epochs of the same number are equal bit for bit."""
        if self.seed is None:
            order = np.arange(len(self.images))
        else:
            order = epoch_order(len(self.images), seed=self.seed, epoch=epoch)
        index_batches = self._index_batches(order)
        for indices, canvases in zip(index_batches, self.images.batches(index_batches), strict=True):
            views = self._views(to_device(canvases, self.device), indices, epoch)
            labels = self.images.labels[torch.from_numpy(indices)]
            yield Batch(
                inputs=self.normalise(views).contiguous(memory_format=self.memory_format),
                labels=to_device(labels, self.device)[None],
            )

    def _views(self, canvases: torch.Tensor, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """(B, 3, size, size) in 0..255: augmented, or the centre."""
        if self.seed is None or self.augmentation is None or not self.augmentation.is_random:
            return centre_crop(canvases, self.size)
        return apply(canvases, self.augmentation.parameters(indices, seed=self.seed, epoch=epoch), size=self.size)

    def _index_batches(self, order: np.ndarray) -> list[np.ndarray]:
        return split_into_batches(order, batch_size=self.batch_size, drop_single=self.seed is not None)


@dataclass(frozen=True, kw_only=True)
class FeatureBatches:
    """Cached features for K members that train side by side, each in its own order.

    Attributes:
        features: (N, D), on the device.
        labels: (N,) int64, on the same device.
        batch_size: at least 1.
        num_members: K.
        seeds: one per member, giving it the order that it would have alone; None yields all in order.
    """

    features: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    batch_size: int
    num_members: int
    seeds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None and len(self.seeds) != self.num_members:
            raise ValueError(f"{len(self.seeds)} seeds for {self.num_members} members")

    @property
    def num_samples(self) -> int:
        return sum(len(indices) for indices in self._index_batches(np.arange(len(self.labels))))

    def __len__(self) -> int:
        return len(self._index_batches(np.arange(len(self.labels))))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield features (K, B, D) with labels (K, B)."""
        num_samples, device = len(self.labels), self.labels.device
        if self.seeds is None:
            orders = np.arange(num_samples)[None]
        else:
            orders = np.stack([epoch_order(num_samples, seed=seed, epoch=epoch) for seed in self.seeds])
        for batch in self._index_batches(orders):
            indices = to_device(torch.from_numpy(np.ascontiguousarray(batch)), device)
            yield Batch(
                inputs=self.features[indices].expand(self.num_members, -1, -1),
                labels=self.labels[indices].expand(self.num_members, -1),
            )

    def _index_batches(self, order: np.ndarray) -> list[np.ndarray]:
        return split_into_batches(order, batch_size=self.batch_size, drop_single=self.seeds is not None)
