"""Fine-tuning: all layers are trained, the backbone from its pretrained weights and the head from random ones."""

from dataclasses import dataclass
from typing import Literal

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.models.param_groups import param_groups
from tl_experiments.strategies.base import Materials, Workload, batchnorm_modules, running_statistics
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
        model = materials.new_model()
        backbone = materials.backbone.requires_grad_(True)
        phase = materials.image_phase(
            "finetune",
            OneMember(model),
            held_in_eval=batchnorm_modules(backbone) if self.batchnorm == "eval" else (),
            train_precision=materials.compute.train,
        )
        held = running_statistics(backbone, prefix="backbone.") if self.batchnorm == "eval" else frozenset()
        scales = {"backbone": self.backbone_lr_scale, "head": 1.0}
        return Workload(
            phases=(phase,),
            groups=param_groups(model, lr_scales=scales, has_member_axis=False),
            deployables=(model,),
            trained=frozenset(model.state_dict()) - held,
        )
