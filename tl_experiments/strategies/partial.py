"""Partial fine-tuning: a part of the backbone and a new head are trained, the rest stays frozen.

The last stages, or any parameters by their names: which layers are best tuned depends on how the new data differ from
the old (Lee et al. 2023, "surgical fine-tuning": the first ones where pixels differ, the last where labels do).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.selections import matching_parameters
from tl_experiments.models.stages import require_stages
from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.selected import selected_phase
from tl_experiments.strategies.thawing import last_stages_phase


@dataclass(frozen=True, kw_only=True)
class Partial(BackboneTraining):
    """Train a part of the backbone and a new head.

    Attributes:
        num_stages: how many of the backbone's are trained, from the last; at least one stays frozen. None where `train`
            says what is.
        train: patterns of names of the backbone's parameters that are trained; None where `num_stages` says it.
    """

    num_stages: int | None
    train: Sequence[str] | None

    def check(self, sketch: Callable[[], Backbone]) -> None:
        super().check(sketch)
        if self.num_stages is not None:
            require_stages(sketch(), num_trained=self.num_stages)
        else:
            matching_parameters(sketch(), self.train or ())

    def prepare(self, materials: Materials) -> Workload:
        """Cut the backbone where its frozen part ends, and put a new head behind it; one member at a time."""
        model = materials.new_model()
        if self.num_stages is not None:
            phase = last_stages_phase(materials, model, num_stages=self.num_stages, name="partial", held=self.held)
        else:
            trained = matching_parameters(model.backbone, self.train or ())
            phase = selected_phase(materials, model, trained=trained, name="partial", held=self.held)
        return self.workload(model, phase)
