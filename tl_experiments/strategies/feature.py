"""Feature extraction: the backbone is frozen and a new linear head is trained on its features.

Frozen: nothing of it moves, no gradient, and BatchNorm in eval mode. `requires_grad=False` alone lets the running
statistics drift, and `track_running_stats=False` normalises by the batch (Kornblith et al. 2019 evaluate in eval mode).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import FeatureBatches
from tl_experiments.data.images import Images
from tl_experiments.data.transforms import to_device
from tl_experiments.features.extract import extract_features
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import param_groups
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Materials, Phase, Workload, running_statistics


class FrozenBackbone(nn.Module):
    """Images (B, 3, S, S) → logits (K, B, C): one pass through a backbone without gradients, then K heads."""

    def __init__(self, backbone: Backbone, bank: HeadBank) -> None:
        super().__init__()
        self.backbone = backbone
        self.bank = bank

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = self.backbone(images).float()
        return self.bank(features.expand(self.bank.num_members, -1, -1))


@dataclass(frozen=True)
class Feature:
    """Train a head on frozen features.

    Attributes:
        batchnorm: eval keeps the backbone in eval mode; train normalises by the batch and lets the statistics drift.
    """

    batchnorm: Literal["eval", "train"]

    @property
    def trains_backbone(self) -> bool:
        return False

    def uses_features(self, augmentation: Augmentation) -> bool:
        return self.batchnorm == "eval" and not augmentation.is_random

    def prepare(self, materials: Materials) -> Workload:
        """Compute the features once, unless every epoch sees other images or other statistics."""
        backbone = materials.backbone.requires_grad_(False)
        bank = HeadBank(
            feature_dim=backbone.feature_dim,
            num_classes=materials.num_classes,
            seeds=[derive_seed(seed, "head") for seed in materials.seeds],
        ).to(materials.compute.device)
        constant = self.uses_features(materials.augmentation)
        phase = _on_features(materials, bank) if constant else self._on_images(materials, bank)
        drifting = frozenset() if self.batchnorm == "eval" else running_statistics(backbone, prefix="backbone.")
        return Workload(
            phases=(phase,),
            groups=param_groups(bank, lr_scales={"": 1.0}),
            deployables=tuple(Model(backbone, bank.head(member)) for member in range(bank.num_members)),
            trained=frozenset({"head.weight", "head.bias"}) | drifting,
        )

    def _on_images(self, materials: Materials, bank: HeadBank) -> Phase:
        if self.batchnorm == "train":
            reason = "strategy.batchnorm=train changes the backbone's statistics"
        else:
            reason = "augmentation is random"
        materials.watch.notice(f"the frozen backbone runs in every epoch, because {reason}")
        return Phase(
            name="feature",
            module=FrozenBackbone(materials.backbone, bank),
            held_in_eval=(materials.backbone,) if self.batchnorm == "eval" else (),
            epochs=materials.epochs,
            train=materials.image_batches(materials.images.train, seed=materials.seeds[0]),
            val=materials.image_batches(materials.images.val),
            test=materials.image_batches(materials.images.test),
            train_precision=materials.compute.infer,
            infer_precision=materials.compute.infer,
        )


def _on_features(materials: Materials, bank: HeadBank) -> Phase:
    def batches(images: Images, seeds: tuple[int, ...] | None = None) -> FeatureBatches:
        features = extract_features(
            materials.backbone,
            images,
            size=materials.backbone.input_spec.size,
            batch_size=materials.compute.infer_batch_size,
            normalise=materials.normalise,
            precision=materials.compute.infer,
            memory_format=materials.compute.memory_format,
            on_progress=materials.watch.work(f"extracting features of {len(images):,} {images.split} images"),
        )
        return FeatureBatches(
            features=features,
            labels=to_device(images.labels, materials.compute.device),
            batch_size=materials.batch_size,
            num_members=bank.num_members,
            seeds=seeds,
        )

    return Phase(
        name="feature",
        module=bank,
        held_in_eval=(),
        epochs=materials.epochs,
        train=batches(materials.images.train, materials.seeds),
        val=batches(materials.images.val),
        test=batches(materials.images.test),
        train_precision=materials.compute.train,
        infer_precision=materials.compute.infer,
    )
