"""The control: the same architecture from random weights, which says what the pretrained ones were worth."""

from dataclasses import dataclass
from typing import ClassVar

from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.strategies.base import Strategy, Workload, changed_tensors
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import whole_phase


@dataclass(frozen=True, kw_only=True)
class Scratch(Strategy):
    """Train all layers from random weights, drawn under the run's seed."""

    pretrained: ClassVar[bool] = False

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        finish = materials.sharded(model)
        phase = whole_phase(materials, model, name="scratch", held=lambda _: ())
        return Workload(
            phases=(phase,),
            groups=param_groups(model, all_parts(model), has_member_axis=False),
            deployables=(model,),
            trained=changed_tensors(model, (phase,)),
            finish=finish,
        )
