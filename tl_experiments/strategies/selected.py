"""Some parameters of the backbone are trained, whichever these are; the others stand still."""

from abc import abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.model import Model
from tl_experiments.models.selections import still_modules
from tl_experiments.models.stages import stage_numbers
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Phase, Workload, names
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import Held, last_stages_phase, whole_phase


@dataclass(frozen=True, kw_only=True)
class Selected(BackboneTraining):
    """Train some parameters of the backbone, and a new head; `chosen` says which.

    Attributes:
        name: of the strategy, for records and errors.
        what: is trained of the backbone, for errors.
    """

    name: ClassVar[str]
    what: ClassVar[str]

    @abstractmethod
    def chosen(self, body: nn.Module) -> Collection[str]:
        """Return the names, in the backbone's body, of the parameters that are trained."""

    def check(self, sketch: Callable[[], Backbone]) -> None:
        super().check(sketch)
        self._some(sketch())

    def prepare(self, materials: Materials) -> Workload:
        """Put a new head behind the backbone; one member at a time."""
        model = materials.new_model()
        trained = self._some(model.backbone)
        phase = selected_phase(materials, model, trained=trained, name=self.name, held=self.held)
        return self.workload(model, phase)

    def _some(self, backbone: Backbone) -> Collection[str]:
        if not (trained := self.chosen(backbone.body)):
            raise SettingError(
                f"strategy={self.name}: {backbone.name} has no {self.what} to train; "
                "expected another backbone, or strategy=partial"
            )
        return trained


def selected_phase(materials: Materials, model: Model, *, trained: Collection[str], name: str, held: Held) -> Phase:
    """Train some parameters of the backbone, and the head.

    Layers of which nothing is trained are in eval mode: their BatchNorm keeps its statistics, their dropout is off. The
    stages before the first that has something trained are computed once where they can be cut off.

    Args:
        materials: what there is.
        model: its backbone is as pretrained.
        trained: names in the backbone's body, one at least.
        name: of the phase.
        held: what stays in eval mode of that of which something is trained.
    """
    phase = _phase_from(materials, model, trained=trained, name=name, held=held)
    own = dict(model.backbone.body.named_parameters())
    still = still_modules(model.backbone, {id(own[parameter]) for parameter in trained})
    return replace(
        phase,
        trained=frozenset({f"backbone.body.{parameter}" for parameter in trained} | names(model.head, prefix="head.")),
        held_in_eval=(*phase.held_in_eval, *still),
    )


def _phase_from(materials: Materials, model: Model, *, trained: Collection[str], name: str, held: Held) -> Phase:
    """Train from the first stage on that has something trained."""
    numbers, num_stages = stage_numbers(model.backbone), len(model.backbone.stages)
    first = min(min(numbers[f"body.{parameter}"] for parameter in trained), num_stages - 1)
    if first > 0:
        try:
            return last_stages_phase(materials, model, num_stages=num_stages - first, name=name, held=held)
        except SettingError as error:
            materials.watch.notice(f"{name}: the whole network runs in every epoch, because {error}")
    return whole_phase(materials, model, name=name, held=held)
