"""LP-FT: a linear probe on the frozen backbone first, then fine-tuning from that head (Kumar et al. 2022).

Fine-tuning from a random head distorts pretrained features before the head has learnt to use them.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import head_phase, whole_phase


@dataclass(frozen=True, kw_only=True)
class LpFt(BackboneTraining):
    """Train the head, then all layers, each under a schedule of its own.

    Attributes:
        probe_epochs: of the head alone, before the run's epochs of fine-tuning.
        probe_lr_scale: the probe's lr is this times `lr`.
    """

    learns_from_features: ClassVar[bool] = True

    probe_epochs: int
    probe_lr_scale: float

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        probe = replace(
            head_phase(materials, model, name="probe"), epochs=self.probe_epochs, lr_scale=self.probe_lr_scale
        )
        return self.workload(model, probe, whole_phase(materials, model, name="finetune", held=self.held))
