"""The order of an epoch over images that lie in shards: shard by shard, and random among a few thousand images.

It is what a reader with a shuffle buffer would yield that goes through the shards in a random order (Aizman, Maltby and
Breuel 2019: WebDataset), but computed from positions alone: an epoch can be entered in its middle without reading what
was seen before, and is the same for any number of ranks and workers.
"""

from dataclasses import dataclass, field

import numpy as np

from tl_experiments.data.hashing import permutation, uniforms
from tl_experiments.data.sampling import Order, Sampler


@dataclass(frozen=True, eq=False)
class ByShards:
    """Puts what a sampler has chosen in an order in which shards are read one after another.

    Attributes:
        chosen: what an epoch sees.
        shards: (N,) integers, the shard of each sample; samples of one shard are in the order in which they lie in it.
        buffer: no sample comes further from its place in its shard than this many places; 1 shuffles shards alone.
    """

    chosen: Sampler
    shards: np.ndarray = field(repr=False)
    buffer: int

    def __call__(self, labels: np.ndarray, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch; each of its places is drawn by `chosen`."""
        order = self.chosen(labels, seed=seed, epoch=epoch)
        _, shards = np.unique(self.shards, return_inverse=True)  # of which some may have no sample here
        turns = permutation(int(shards.max(initial=-1)) + 1, seed=seed, stream="sampler/shards", epoch=epoch)
        turn_of = np.argsort(turns)
        in_line = np.lexsort((order.draws, order.samples, turn_of[shards[order.samples]]))
        places = np.arange(len(in_line))
        places = places + self.buffer * uniforms(places, seed=seed, stream="sampler/buffer", epoch=epoch)
        mixed = in_line[np.argsort(places, kind="stable")]
        return Order(order.samples[mixed], order.draws[mixed])
