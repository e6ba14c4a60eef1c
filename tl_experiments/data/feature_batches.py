"""Batches of features or other activations for members that train side by side, each in its own order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from tl_experiments.data.batches import Batch, batch_bounds, portions
from tl_experiments.data.hashing import uniforms
from tl_experiments.data.sampling import Sampler, shuffled
from tl_experiments.data.transforms import to_device
from tl_experiments.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True, kw_only=True)
class FeatureBatches:
    """Features of a split, or activations in their place, (..., D) being any shape and dtype then.

    Attributes:
        features: float32 (V, N, D), V views of each sample, on the device.
        labels: (N,) int64, on the same device.
        batch_size: at least 1.
        num_members: K.
        seeds: one per member, of its order and its choice of views; None yields the first view of all in order.
        sampler: chooses what an epoch sees.
        mirrored: float32 (N, D) of the samples' mirror images, to be yielded beside them in order; None yields none.
    """

    features: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    batch_size: int
    num_members: int
    seeds: tuple[int, ...] | None = None
    sampler: Sampler = shuffled
    mirrored: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.seeds is not None and len(self.seeds) != self.num_members:
            raise ValueError(f"{len(self.seeds)} seeds for {self.num_members} members")

    @property
    def num_samples(self) -> int:
        return sum(end - start for start, end in self._bounds)

    def __len__(self) -> int:
        return len(self._bounds)

    @property
    def _bounds(self) -> list[tuple[int, int]]:
        return batch_bounds(len(self.labels), batch_size=self.batch_size, drop_single=self.seeds is not None)

    def epoch(self, epoch: int, *, skip: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield features (K, B, D), or (1, B, D) where all members see the same, with labels (K, B)."""
        num_samples, device = len(self.labels), self.labels.device
        rows = self.features.flatten(0, 1)
        orders, views = self._orders(epoch)
        own = portions(self._bounds[skip:], ranks)
        if not own:
            return
        places, sizes = np.concatenate([portion.places for portion in own]), [len(portion.places) for portion in own]
        # The whole epoch goes to the device at once: a copy for each batch would make the host wait.
        samples = to_device(torch.from_numpy(orders[:, places]), device).split(sizes, dim=1)
        seen = to_device(torch.from_numpy((views * num_samples + orders)[:, places]), device).split(sizes, dim=1)
        for portion, chosen, wanted in zip(own, samples, seen, strict=True):
            yield Batch(
                rows[wanted],
                self.labels[chosen].expand(self.num_members, -1),
                sample_dim=1,
                mirrored=None if self.mirrored is None else self.mirrored[chosen],
                num_together=portion.num_together,
                stands_in=portion.stands_in,
            )

    def _orders(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return samples and views, (K, N) int64; (1, N) where they are the same for all members."""
        num_views, num_samples = self.features.shape[:2]
        if self.seeds is None:
            return np.arange(num_samples)[None], np.zeros((1, num_samples), dtype=np.int64)
        seeds = self.seeds[:1] if len(set(self.seeds)) == 1 else self.seeds
        orders = [self.sampler(self._host_labels, seed=seed, epoch=epoch) for seed in seeds]
        drawn = [
            uniforms(order.draws, seed=seed, stream="view", epoch=epoch)
            for order, seed in zip(orders, seeds, strict=True)
        ]
        return np.stack([order.samples for order in orders]), (np.stack(drawn) * num_views).astype(np.int64)

    @cached_property
    def _host_labels(self) -> np.ndarray:
        return self.labels.cpu().numpy()
