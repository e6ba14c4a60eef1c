"""Only biases and a new head are trained (Ben Zaken et al. 2022, "BitFit")."""

from collections.abc import Callable
from dataclasses import dataclass

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.selections import bias_parameters
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Materials, Workload
from tl_experiments.strategies.selected import selected_phase


@dataclass(frozen=True, kw_only=True)
class BiasOnly(BackboneTraining):
    """Train all biases: of convolutions and linear layers where they have them, and of norms."""

    def check(self, sketch: Callable[[], Backbone]) -> None:
        super().check(sketch)
        _biases(sketch())

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        phase = selected_phase(materials, model, trained=_biases(model.backbone), name="bias_only", held=self.held)
        return self.workload(model, phase)


def _biases(backbone: Backbone) -> frozenset[str]:
    if not (found := bias_parameters(backbone.body)):
        raise SettingError(
            f"strategy=bias_only: {backbone.name} has no biases to train; expected a backbone with some, "
            "or strategy=partial"
        )
    return found
