"""Fine-tuning: all layers are trained, the backbone from its pretrained weights and the head from random ones."""

from dataclasses import dataclass, replace

from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import whole_phase


@dataclass(frozen=True, kw_only=True)
class Finetune(BackboneTraining):
    """Train all layers."""

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        finish = materials.sharded(model)
        workload = self.workload(model, whole_phase(materials, model, name="finetune", held=self.held))
        return replace(workload, finish=finish)
