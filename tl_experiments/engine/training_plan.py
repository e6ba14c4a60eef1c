"""What is going to be trained: for each phase which parts, how many parameters, at which rates, BatchNorm's mode."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from tl_experiments.engine.stretches import stretches
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import ParamGroup
from tl_experiments.strategies.base import Phase, Workload, batchnorm_modules, moving_norms

Mode = Literal["train", "eval", "mixed", "none"]


@dataclass(frozen=True)
class PartPlan:
    """A group of parameters in one phase.

    Attributes:
        name: of the part.
        num_params: of one member.
        lr_scale: the group's times the phase's: its peak is this times a member's lr.
        weight_decay: whether the optimizer's applies.
        l2_sp: towards the weights that training begins with.
    """

    name: str
    num_params: int
    lr_scale: float
    weight_decay: bool
    l2_sp: float


@dataclass(frozen=True)
class PhasePlan:
    """One phase.

    Attributes:
        name: of the phase.
        first_epoch, last_epoch: counted from 1 over all phases.
        parts: that have a gradient; none else changes but by BatchNorm's mode.
        batchnorm: mode of the model's layers: `train` where statistics follow the data, `eval` where they stay, `mixed`
            where some do and some do not, `none` where there are no such layers.
        by_steps: whether it makes gradient steps; else it is solved, and rates mean nothing.
    """

    name: str
    first_epoch: int
    last_epoch: int
    parts: tuple[PartPlan, ...]
    batchnorm: Mode
    by_steps: bool

    @property
    def num_params(self) -> int:
        return sum(part.num_params for part in self.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """In the network's order, each once."""
        return tuple(dict.fromkeys(part.name for part in self.parts))


@dataclass(frozen=True)
class TrainingPlan:
    """All phases of members that train side by side.

    Attributes:
        phases: in order.
        num_params: of one member's model, trained or not.
        lrs: of each member, as the optimizers begin.
    """

    phases: tuple[PhasePlan, ...]
    num_params: int
    lrs: tuple[float, ...]

    def of_member(self, member: int) -> Self:
        return replace(self, lrs=(self.lrs[member],))

    def peaks(self, phase: PhasePlan) -> tuple[float, float] | None:
        """Return the lowest and the highest rate that any group of any member comes to; None where there is none."""
        scales = [part.lr_scale for part in phase.parts]
        if not phase.by_steps or not scales:
            return None
        return min(scales) * min(self.lrs), max(scales) * max(self.lrs)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `peak_lr` is the most that a schedule makes of it."""
        return {
            "num_params": self.num_params,
            "phases": [
                {
                    "name": phase.name,
                    "first_epoch": phase.first_epoch,
                    "last_epoch": phase.last_epoch,
                    "num_trained_params": phase.num_params,
                    "batchnorm": phase.batchnorm,
                    "parts": [asdict(part) | self._peak(phase, part) for part in phase.parts],
                }
                for phase in self.phases
            ],
        }

    def _peak(self, phase: PhasePlan, part: PartPlan) -> dict[str, Any]:
        rates = [lr * part.lr_scale for lr in self.lrs] if phase.by_steps else [None]
        return {"peak_lr": rates if len(rates) > 1 else rates[0]}


def make_training_plan(workload: Workload, *, lrs: Sequence[float]) -> TrainingPlan:
    """Say what a workload is going to do.

    Args:
        workload: of K members.
        lrs: K rates that their optimizers begin with.
    """
    model = workload.deployables[0]
    phases = tuple(
        PhasePlan(
            name=stretch.phase.name,
            first_epoch=stretch.start + 1,
            last_epoch=stretch.end,
            parts=tuple(_parts(workload.groups, stretch.phase) if stretch.phase.solve is None else _solved(workload)),
            batchnorm=_mode(model, stretch.phase),
            by_steps=stretch.phase.solve is None,
        )
        for stretch in stretches(workload.phases)
    )
    return TrainingPlan(phases, num_params=sum(parameter.numel() for parameter in model.parameters()), lrs=tuple(lrs))


def _parts(groups: Sequence[ParamGroup], phase: Phase) -> list[PartPlan]:
    parts = []
    for group in groups:
        trained = [p for name, p in zip(group.param_names, group.params, strict=True) if name in phase.trained]
        if trained:
            count = sum(parameter[0].numel() if group.has_member_axis else parameter.numel() for parameter in trained)
            name, scale = group.name.rpartition("/")[0], group.lr_scale * phase.lr_scale
            parts.append(PartPlan(name, count, scale, weight_decay=group.weight_decay, l2_sp=group.l2_sp))
    return parts


def _solved(workload: Workload) -> list[PartPlan]:
    """What is solved for is in no group, as no optimizer has a part in it."""
    name = ", ".join(sorted({name.partition(".")[0] for name in workload.trained}))
    return [PartPlan(name, workload.num_trained_params(0), lr_scale=1.0, weight_decay=False, l2_sp=0.0)]


def _mode(model: Model, phase: Phase) -> Mode:
    """Of all layers of the model: what a phase does not run, because its outputs are kept, stands still too."""
    layers = {id(layer) for layer in (*batchnorm_modules(model), *batchnorm_modules(phase.module))}
    moving = {id(layer) for layer in moving_norms(phase)}
    if not layers:
        return "none"
    return "mixed" if moving and moving < layers else "train" if moving else "eval"
