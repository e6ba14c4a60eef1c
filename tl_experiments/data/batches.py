"""Batches on the device, in an order that is a function of (seed, epoch) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.canvases import split_on_device
from tl_experiments.data.images import Images
from tl_experiments.data.mixing import NO_MIXING, Mixed, Mixing
from tl_experiments.data.sampling import Order, Sampler, shuffled
from tl_experiments.data.transforms import Normalise, centre_crop, to_device
from tl_experiments.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Batch:
    """One step's samples, on the device: those of this process, where several share the step.

    Attributes:
        inputs: images float32 (B, 3, S, S), or features (K, B, D) of K members, or activations (1, B, ...).
        labels: (K, B) int64; K = 1 for images.
        sample_dim: of the inputs that counts samples: 0 for images, 1 for features.
        mixed: into each image; None where images are whole.
        mirrored: inputs of the same samples' mirror images; None where they are not looked at.
        num_together: samples of the step in all processes; None where this one has all.
        stands_in: its one sample is another process's, and does not count here: there are fewer samples than processes,
            and all of these take part in every step.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    sample_dim: int = 0
    mixed: Mixed | None = None
    mirrored: torch.Tensor | None = None
    num_together: int | None = None
    stands_in: bool = False

    @property
    def num_samples(self) -> int:
        return self.labels.shape[1]

    @property
    def num_in_step(self) -> int:
        """Samples of the step, in all processes."""
        return self.num_samples if self.num_together is None else self.num_together

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
        return [
            replace(self, inputs=own, labels=of_them, mixed=others, mirrored=None) for own, of_them, others in parts
        ]

    def only(self, places: torch.Tensor) -> "Batch":
        """Return some of the samples, by their places in the batch, int64 on the device."""
        return replace(
            self,
            inputs=self.inputs.index_select(self.sample_dim, places),
            labels=self.labels.index_select(1, places),
            mixed=self.mixed and Mixed(self.mixed.labels.index_select(1, places), self.mixed.share),
        )


class Batches(Protocol):
    """The samples of a split, epoch by epoch."""

    @property
    def num_samples(self) -> int:
        """Samples that an epoch yields, of each member."""
        ...

    def __len__(self) -> int:
        """Steps of an epoch."""
        ...

    def epoch(self, epoch: int, *, skip: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield the batches of an epoch but the first `skip`, which are not even made.

        Args:
            epoch: whose order it is, whoever and how many share it.
            skip: batches.
            ranks: share the samples of each batch; this process is given its own.
        """
        ...


@dataclass(frozen=True)
class Portion:
    """What one process has of a batch.

    Attributes:
        places: in the epoch, of its samples; at least one.
        num_together: samples of the batch.
        stands_in: as of `Batch`.
    """

    places: np.ndarray
    num_together: int
    stands_in: bool


def portions(bounds: Sequence[tuple[int, int]], ranks: Ranks) -> list[Portion]:
    """Return what this process has of each batch.

    Args:
        bounds: of the batches: the places start, ..., end - 1 of the epoch.
        ranks: that share them.
    """
    made = []
    for start, end in bounds:
        own = ranks.places(start, end)
        made.append(Portion(own if len(own) else np.array([start]), num_together=end - start, stands_in=not len(own)))
    return made


def batch_bounds(num_samples: int, *, batch_size: int, drop_single: bool) -> list[tuple[int, int]]:
    """Cut the places of an epoch into batches: each has those from its first number to before its second.

    Args:
        num_samples: of the epoch.
        batch_size: of all batches but the last.
        drop_single: leave out a trailing batch of one sample when there are others: BatchNorm cannot normalise it.
    """
    if drop_single and num_samples > batch_size > 1 and num_samples % batch_size == 1:
        num_samples -= 1
    return [(start, min(start + batch_size, num_samples)) for start in range(0, num_samples, batch_size)]


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
        return sum(end - start for start, end in self._bounds)

    def __len__(self) -> int:
        return len(self._bounds)

    @property
    def _bounds(self) -> list[tuple[int, int]]:
        return batch_bounds(len(self.images), batch_size=self.batch_size, drop_single=self.seed is not None)

    def epoch(self, epoch: int, *, skip: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield (B, 3, size, size) float32 with labels (1, B); epochs of the same number are equal bit for bit.

        Where images are mixed, the others of a batch are wanted too: every process decodes and augments all of them.
        """
        order, bounds = self._order(epoch), self._bounds[skip:]
        own = portions(bounds, ranks)
        made = portions(bounds, ALONE) if self.seed is not None and self.mixing.is_on else own
        samples = [order.samples[portion.places] for portion in made]
        canvas_batches = self.images.batches(samples, device=self.device)
        label_batches = split_on_device(self.images.labels, samples, device=self.device)
        parts = zip(bounds, own, made, canvas_batches, label_batches, strict=True)
        for number, ((start, _), portion, seen, canvases, labels) in enumerate(parts, start=skip):
            views = self._views(canvases, order.draws[seen.places], epoch)
            inputs = self.normalise(views, self.memory_format)
            batch = Batch(
                inputs,
                labels[None],
                mixed=self._mixed(inputs, labels[None], epoch=epoch, number=number),
                mirrored=self.normalise(views.flip(-1), self.memory_format) if self.mirrors else None,
                num_together=portion.num_together,
                stands_in=portion.stands_in,
            )
            if len(seen.places) > len(portion.places):
                batch = batch.only(to_device(torch.from_numpy(portion.places - start), self.device))
            yield batch

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
