"""Only the normalisation layers and a new head are trained.

Scales and shifts are a hundredth of a network's parameters, and choose among the features that it has (Frankle et al.
2021, "Training BatchNorm and only BatchNorm").
"""

from collections.abc import Callable
from dataclasses import dataclass

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.selections import norm_parameters
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Materials, Workload
from tl_experiments.strategies.selected import selected_phase


@dataclass(frozen=True, kw_only=True)
class NormOnly(BackboneTraining):
    """Train scales and shifts of the norms."""

    def check(self, sketch: Callable[[], Backbone]) -> None:
        super().check(sketch)
        _norms(sketch())

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        phase = selected_phase(materials, model, trained=_norms(model.backbone), name="norm_only", held=self.held)
        return self.workload(model, phase)


def _norms(backbone: Backbone) -> frozenset[str]:
    if not (found := norm_parameters(backbone.body)):
        raise SettingError(
            f"strategy=norm_only: {backbone.name} has no normalisation layers to train; "
            "expected a backbone with BatchNorm or LayerNorm, or strategy=bias_only"
        )
    return found
