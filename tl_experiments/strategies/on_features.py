"""A frozen backbone and what learns from its features: computed once where they stay the same, else in every epoch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tl_experiments.data.batches import Batches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import to_device
from tl_experiments.features.extract import Mirrored, View
from tl_experiments.features.store import FeatureStore
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.model import classify
from tl_experiments.strategies.base import Materials, SplitBatches


class FrozenBackbone(nn.Module):
    """Images (B, 3, S, S) → logits (K, B, C): one pass through a backbone without gradients, then K heads."""

    def __init__(self, backbone: Backbone, heads: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.backbone(images)
        return self.heads(features[None])


class OneHead(nn.Module):
    """Features (1, B, D) of any dtype → logits (1, B, C)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return classify(self.head, features[0])[None]


def open_features(
    materials: Materials, *, num_members: int = 1, views: Sequence[View | None] = (None,), in_order: bool = False
) -> SplitBatches:
    """Return the features of all splits, from the cache where they are known.

    Args:
        materials: whose backbone is as it was pretrained.
        num_members: that learn from them side by side.
        views: of the training images, one of which is drawn in every epoch.
        in_order: each training image once and always in order, for those that look at all of them at once.

    Raises:
        DataError: an image cannot be decoded.
    """
    store = FeatureStore(
        materials.backbone,
        normalise=materials.normalise,
        compute=materials.compute,
        cached=materials.cache,
        watch=materials.watch,
    )

    def batches(images: Images, views: Sequence[View | None], seeds: tuple[int, ...] | None) -> FeatureBatches:
        return FeatureBatches(
            features=torch.stack([store.features(images, view=view) for view in views]),
            labels=to_device(images.labels, materials.compute.device),
            batch_size=materials.batch_size,
            num_members=num_members,
            seeds=seeds,
            sampler=materials.sampler,
        )

    images = materials.images
    val, test = (batches(split, (None,), None) for split in (images.val, images.test))

    def mirrored() -> tuple[FeatureBatches, FeatureBatches]:
        return (
            replace(val, mirrored=store.features(images.val, view=Mirrored())),
            replace(test, mirrored=store.features(images.test, view=Mirrored())),
        )

    return SplitBatches(
        train=batches(images.train, views, None if in_order else materials.seeds),
        val=val,
        test=test,
        mirrored=mirrored if materials.mirrors else None,
    )


def whole_split(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features (N, D) and labels (N,) of a split that is yielded in order, for one member."""
    parts = list(batches.epoch(0))
    return torch.cat([part.inputs[0] for part in parts]), torch.cat([part.labels[0] for part in parts])
