"""Partial fine-tuning: the last stages of the backbone and a new head are trained, the first ones stay frozen."""

from dataclasses import dataclass

from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Materials, Workload
from tl_experiments.strategies.thawing import last_stages_phase


@dataclass(frozen=True, kw_only=True)
class Partial(BackboneTraining):
    """Train the last stages and a new head.

    Attributes:
        num_stages: how many of the backbone's are trained; at least one stays frozen.
    """

    num_stages: int

    def prepare(self, materials: Materials) -> Workload:
        """Cut the backbone and put a new head behind it; one member at a time."""
        model = materials.new_model()
        phase = last_stages_phase(materials, model, num_stages=self.num_stages, name="partial", held=self.held)
        return self.workload(model, phase)
