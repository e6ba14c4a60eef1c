"""Gradual unfreezing: the head is trained first, then stage by stage from the last down to the first thaws.

Howard & Ruder 2018 (ULMFiT) thaw one layer an epoch, so that what was learnt in general is not forgotten at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.model import Model
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.backbone_training import BackboneTraining
from tl_experiments.strategies.base import Phase, Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.thawing import head_phase, last_stages_phase, whole_phase


@dataclass(frozen=True, kw_only=True)
class Gradual(BackboneTraining):
    """Train ever more of the last stages, under one schedule.

    Attributes:
        every_epochs: after so many epochs another stage thaws; epochs that are left when all are thawed train all.
    """

    learns_from_features: ClassVar[bool] = True

    every_epochs: int

    def check(self, sketch: Callable[[], Backbone]) -> None:
        super().check(sketch)
        _require_some(sketch())

    def prepare(self, materials: Materials) -> Workload:
        """Cut the backbone before each stage that thaws; one member at a time."""
        model = materials.new_model()
        _require_some(model.backbone)
        num_stages, phases, left = len(model.backbone.stages), [], materials.epochs
        while left > 0:
            thawed = len(phases)
            epochs = left if thawed >= num_stages else min(self.every_epochs, left)
            phase = self._phase(materials, model, thawed=thawed)
            phases.append(replace(phase, epochs=epochs, continues=thawed > 0))
            left -= epochs
        if late := num_stages + 1 - len(phases):
            materials.watch.notice(
                f"gradual: {late} of {num_stages} stages never thaw; "
                f"expected epochs above {num_stages * self.every_epochs} for all"
            )
        return self.workload(model, *phases)

    def _phase(self, materials: Materials, model: Model, *, thawed: int) -> Phase:
        if thawed == 0:
            return head_phase(materials, model, name="head")
        if thawed >= len(model.backbone.stages):
            return whole_phase(materials, model, name="all", held=self.held)
        name = f"{thawed} stage{'s' if thawed > 1 else ''}"
        return last_stages_phase(materials, model, num_stages=thawed, name=name, held=self.held)


def _require_some(backbone: Backbone) -> None:
    if not backbone.stages:
        raise SettingError(
            f"strategy=gradual: {backbone.name} does not say what its stages are; expected a backbone that does, "
            "or strategy=lp_ft, which thaws all at once"
        )
