"""Some parameters of the backbone are trained, whichever these are; the others stand still."""

from collections.abc import Collection
from dataclasses import replace

from tl_experiments.models.model import Model
from tl_experiments.models.selections import still_modules
from tl_experiments.models.stages import stage_numbers
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Materials, Phase, names
from tl_experiments.strategies.thawing import Held, last_stages_phase, whole_phase


def selected_phase(materials: Materials, model: Model, *, trained: Collection[str], name: str, held: Held) -> Phase:
    """Train some parameters of the backbone, and the head.

    Layers of which nothing is trained are in eval mode: their BatchNorm keeps its statistics, their dropout is off. The
    stages before the first that has something trained are computed once where they can be cut off.

    Args:
        materials: what there is.
        model: its backbone is as pretrained.
        trained: names in the backbone's body.
        name: of the phase.
        held: what stays in eval mode of that of which something is trained.
    """
    phase = _phase_from(materials, model, trained=trained, name=name, held=held)
    own = dict(model.backbone.body.named_parameters())
    still = still_modules(model.backbone, {id(own[parameter]) for parameter in trained})
    return replace(
        phase,
        trained=frozenset(
            {f"backbone.body.{parameter}" for parameter in trained} | {f"head.{own}" for own in names(model.head)}
        ),
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
