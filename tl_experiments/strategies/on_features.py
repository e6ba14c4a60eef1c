"""A frozen backbone and what learns from its features: computed once where they stay the same, else in every epoch."""

from collections.abc import Callable, Sequence
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
from tl_experiments.runtime.share import Share
from tl_experiments.strategies.base import Phase
from tl_experiments.strategies.materials import Materials, SplitBatches


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


def frozen_phase(
    materials: Materials,
    heads: nn.Module,
    *,
    name: str,
    trained: frozenset[str],
    features: Callable[[], SplitBatches],
    runs_because: str | None,
) -> Phase:
    """Train heads behind the frozen backbone: on features that are computed once, or on images.

    Args:
        materials: what there is.
        heads: features (1, B, D) → logits (K, B, C).
        name: of the phase.
        trained: names of the heads' parameters.
        features: opens them.
        runs_because: why the backbone runs in every epoch, which is told; None where features are kept.
    """
    runs = runs_because is not None
    if runs:
        materials.watch.notice(f"{name}: the frozen backbone runs in every epoch, because {runs_because}")
    return Phase(
        name=name,
        module=FrozenBackbone(materials.backbone, heads) if runs else heads,
        trained=trained,
        held_in_eval=(materials.backbone,) if runs else (),
        epochs=materials.epochs,
        open=materials.open_images if runs else features,
        train_precision=materials.compute.infer,  # of the backbone; heads compute in float32
        infer_precision=materials.compute.infer,
    )


def open_features(
    materials: Materials, *, num_members: int = 1, views: Sequence[View | None] = (None,), in_order: bool = False
) -> SplitBatches:
    """Return the pretrained backbone's features of all splits, from the cache where they are known.

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
        share=materials.compute.ranks.share,
    )

    return frozen_splits(
        materials,
        lambda images, view: store.features(images, view=view),
        num_members=num_members,
        views=views,
        in_order=in_order,
        val_batch_size=materials.batch_size,
    )


def keep_features(
    materials: Materials, *, views: Sequence[View | None], share: Share, unkept: Callable[[str], None]
) -> int:
    """Extract what is not known of all that `open_features` opens under these views, for runs that come later.

    Args:
        materials: whose images are a share of the dataset's.
        views: of the training images.
        share: which it is.
        unkept: told why features cannot be kept, and may raise.

    Returns:
        How many images were seen, each view of them counted.

    Raises:
        DataError: an image cannot be decoded.
    """
    store = FeatureStore(
        materials.backbone,
        normalise=materials.normalise,
        compute=materials.compute,
        cached=True,
        watch=materials.watch,
        share=share,
        unkept=unkept,
    )
    return sum(store.keep(images, view=view) for images, view in seen(materials, views))


def seen(materials: Materials, views: Sequence[View | None]) -> list[tuple[Images, View | Mirrored | None]]:
    """Return the splits, and how each is seen, of which `open_features` opens features."""
    images = materials.images
    unseen: list[tuple[Images, View | Mirrored | None]] = [(images.val, None), (images.test, None)]
    if materials.mirrors:
        unseen += [(images.val, Mirrored()), (images.test, Mirrored())]
    return [*((images.train, view) for view in views), *unseen]


def frozen_splits(
    materials: Materials,
    outputs: Callable[[Images, View | Mirrored | None], torch.Tensor],
    *,
    val_batch_size: int,
    num_members: int = 1,
    views: Sequence[View | None] = (None,),
    in_order: bool = False,
) -> SplitBatches:
    """Return the batches of what a frozen network says of all splits.

    Args:
        materials: whose images these are.
        outputs: given N images and how they are seen, returns (N, ...) on the device.
        val_batch_size: samples at once where nothing is trained.
        num_members, views, in_order: as of `open_features`.

    Raises:
        DataError: an image cannot be decoded.
    """

    def unseen(images: Images) -> FeatureBatches:
        return FeatureBatches(
            features=outputs(images, None)[None],
            labels=to_device(images.labels, materials.compute.device),
            batch_size=val_batch_size,
            num_members=num_members,
            seeds=None,
            sampler=materials.sampler,
        )

    images, val = materials.images, unseen(materials.images.val)
    of_train = [outputs(images.train, view) for view in views]
    train = FeatureBatches(
        features=of_train[0][None] if len(of_train) == 1 else torch.stack(of_train),  # one is not copied
        labels=to_device(images.train.labels, materials.compute.device),
        batch_size=materials.batch_size,
        num_members=num_members,
        seeds=None if in_order else materials.seeds,
        sampler=materials.sampler,
    )

    def at_the_end() -> tuple[FeatureBatches, FeatureBatches]:
        test = unseen(images.test)
        if not materials.mirrors:
            return val, test
        return (
            replace(val, mirrored=outputs(images.val, Mirrored())),
            replace(test, mirrored=outputs(images.test, Mirrored())),
        )

    return SplitBatches(train=train, val=val, at_the_end=at_the_end)


def whole_split(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features (N, D) and labels (N,) of a split that is yielded in order, for one member."""
    parts = list(batches.epoch(0))
    return torch.cat([part.inputs[0] for part in parts]), torch.cat([part.labels[0] for part in parts])
