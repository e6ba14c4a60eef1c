"""Fine-tuning: all layers are trained, the backbone from its pretrained weights and the head from random ones."""

from dataclasses import dataclass
from typing import Literal

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.models.heads import make_head
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import param_groups
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Materials, Phase, Workload, batchnorm_modules, running_statistics
from tl_experiments.strategies.one_member import OneMember


@dataclass(frozen=True)
class Finetune:
    """Train all layers.

    Attributes:
        batchnorm: train lets the statistics follow the new data; eval keeps them as pretrained.
        backbone_lr_scale: the backbone's lr is this times the head's.
    """

    batchnorm: Literal["eval", "train"]
    backbone_lr_scale: float

    @property
    def trains_backbone(self) -> bool:
        return True

    def uses_features(self, augmentation: Augmentation) -> bool:  # noqa: ARG002 - the protocol's signature
        return False

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        [seed] = materials.seeds
        backbone = materials.backbone.requires_grad_(True)
        head = make_head(
            feature_dim=backbone.feature_dim, num_classes=materials.num_classes, seed=derive_seed(seed, "head")
        )
        model = Model(backbone, head.to(materials.compute.device))
        phase = Phase(
            name="finetune",
            module=OneMember(model),
            held_in_eval=batchnorm_modules(backbone) if self.batchnorm == "eval" else (),
            epochs=materials.epochs,
            train=materials.image_batches(materials.images.train, seed=seed),
            val=materials.image_batches(materials.images.val),
            test=materials.image_batches(materials.images.test),
            train_precision=materials.compute.train,
            infer_precision=materials.compute.infer,
        )
        held = running_statistics(backbone, prefix="backbone.") if self.batchnorm == "eval" else frozenset()
        scales = {"backbone": self.backbone_lr_scale, "head": 1.0}
        return Workload(
            phases=(phase,),
            groups=param_groups(model, lr_scales=scales, has_member_axis=False),
            deployables=(model,),
            trained=frozenset(model.state_dict()) - held,
        )
