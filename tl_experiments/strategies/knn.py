"""k nearest neighbours among frozen features: nothing is trained, and k is chosen on val.

The baseline that says what the features are worth as they are (Caron et al. 2021, DINO: cosine, temperature 0.07).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from tl_experiments.data.batches import Batches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.models.model import Model
from tl_experiments.models.neighbours import Neighbours, NeighboursHead
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials, SplitBatches
from tl_experiments.strategies.on_features import open_features, whole_split
from tl_experiments.strategies.solved import Solved, solved_phase


@dataclass(frozen=True, kw_only=True)
class Knn(Solved):
    """Let the nearest training images vote.

    Attributes:
        num_neighbours: values of k that are tried, one an epoch; those that exceed the number of training images count
            as that.
        temperature: a neighbour's vote weighs exp(cosine / temperature).
    """

    num_neighbours: Sequence[int]
    temperature: float

    def prepare(self, materials: Materials) -> Workload:
        """Put a head that remembers the training images behind the backbone; one member at a time."""
        num_images = len(materials.images.train)
        ks = sorted({min(k, num_images) for k in self.num_neighbours})
        kind = Neighbours(num_images=num_images, most=ks[-1], temperature=self.temperature)
        head = kind.make(feature_dim=materials.backbone.feature_dim, num_classes=materials.num_classes, seed=0)
        assert isinstance(head, NeighboursHead)
        model = Model(materials.backbone.requires_grad_(False), head.to(materials.compute.device))
        features = open_features(materials, in_order=True)
        head.remember(*whole_split(features.train))

        def solve(_: Batches, epoch: int) -> None:
            head.k.fill_(ks[epoch - 1])

        phase = solved_phase(
            materials,
            _Votes(head),
            name="knn",
            values={"k": ks},
            open=lambda: _find_neighbours(materials, head, features),
            solve=solve,
        )
        return Workload(
            phases=(phase,),
            groups=(),
            deployables=(model,),
            trained=frozenset({"head.k"}),  # what is remembered follows from frozen weights: no checkpoint need hold it
            head={"_target_": f"{Neighbours.__module__}.{Neighbours.__qualname__}", **asdict(kind)},
        )


class _Votes(nn.Module):
    """Neighbours (1, B, 2, M) → logits (1, B, C)."""

    def __init__(self, head: NeighboursHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, nearest: torch.Tensor) -> torch.Tensor:
        with torch.autocast(nearest.device.type, enabled=False):
            return self.head.vote(nearest[0])[None]


@torch.no_grad()
def _find_neighbours(materials: Materials, head: NeighboursHead, opened: SplitBatches) -> SplitBatches:
    """Find everybody's neighbours once, for all k; a training image is not its own, so that train/acc says something.

    Args:
        materials: of a lone member.
        head: that remembers the training images.
        opened: the features of all splits, of train in order.
    """

    def batches(of: Batches, *, are_own: bool = False) -> FeatureBatches:
        features, labels = whole_split(of)
        return FeatureBatches(
            features=head.nearest(features, are_own=are_own)[None],
            labels=labels,
            batch_size=materials.batch_size,
            num_members=1,
            mirrored=None if (mirrored := _mirrored(of)) is None else head.nearest(mirrored),
        )

    def at_the_end() -> tuple[FeatureBatches, FeatureBatches]:
        val, test = opened.at_the_end()
        return batches(val), batches(test)

    return SplitBatches(train=batches(opened.train, are_own=True), val=batches(opened.val), at_the_end=at_the_end)


def _mirrored(batches: Batches) -> torch.Tensor | None:
    assert isinstance(batches, FeatureBatches)
    return batches.mirrored
