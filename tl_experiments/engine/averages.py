"""Moving averages of what is trained, which generalise better than the last weights (Polyak & Juditsky 1992).

As in timm and in torchvision's references, what is averaged is parameters and the running statistics of BatchNorm, and
the decay warms up, as in TensorFlow's `ExponentialMovingAverage`: the nth update has min(decay, (1 + n) / (10 + n)).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from tl_experiments.engine.state import compartment, prefixed
from tl_experiments.models.sharded import own_part
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Phase, Workload, moving_norms

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Moving:
    """Tensors of one member that a phase moves and that began at the same step."""

    begun: int  # steps before the first that is averaged
    weights: list[torch.Tensor]
    averages: list[torch.Tensor]


class Averages:
    """The averages of K members.

    Each begins with the phase that first moves its tensor, from what the tensor is then; later phases go on with it.
    Tensors that were not moved yet, and counts of batches, have none. Only single operations are used, so that a member
    gets the same bits alone and in a bank.
    """

    def __init__(self, tensors: Sequence[Tensors], *, decay: float | None) -> None:
        """Watch the trained tensors of K members.

        Args:
            tensors: by name, the same for all members.
            decay: in (0, 1), once it has warmed up; None makes no averages.
        """
        self._tensors = tensors
        self._decay = decay
        self._averages: list[dict[str, torch.Tensor]] = [{} for _ in tensors]
        self._begun: dict[str, int] = {}
        self._moving: list[list[Moving]] = [[] for _ in tensors]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._begun)

    def begin(self, moved: Collection[str], *, step: int, solved: bool = False) -> None:
        """Begin a phase, or go on with it.

        Args:
            moved: names of the tensors that it moves.
            step: steps before it; only counts for those that it is the first to move.
            solved: it puts weights in place, which are no steps to be averaged.
        """
        if self._decay is None:
            return
        names = sorted(name for name in moved if self._tensors[0][name].is_floating_point())
        for name in names:
            if solved:
                self._begun.pop(name, None)
            elif name not in self._begun:
                self._begun[name] = step
                for tensors, averages in zip(self._tensors, self._averages, strict=True):
                    averages[name] = tensors[name].detach().clone()
        going_on = [name for name in names if name in self._begun]
        self._moving = [
            [self._together(member, going_on, begun) for begun in sorted({self._begun[name] for name in going_on})]
            for member in range(len(self._tensors))
        ]

    def _together(self, member: int, names: Sequence[str], begun: int) -> Moving:
        alike = [name for name in names if self._begun[name] == begun]
        tensors, averages = self._tensors[member], self._averages[member]
        return Moving(begun, [tensors[name] for name in alike], [averages[name] for name in alike])

    @torch.no_grad()
    def update(self, updated: torch.Tensor, *, step: int) -> None:
        """Move the averages towards the weights.

        Args:
            updated: bool (K,), on the device: the members that the step has changed; the others' stay.
            step: steps since training began, this one included; those that were left out count, as the host does not
                know of them.
        """
        for updates, counts in zip(self._moving, updated.unbind(), strict=True):
            for moving in updates:
                moved = torch._foreach_sub(moving.weights, moving.averages)
                torch._foreach_mul_(moved, counts * self._share(step - moving.begun))
                torch._foreach_add_(moving.averages, moved)

    def _share(self, num_updates: int) -> float:
        assert self._decay is not None
        return 1 - min(self._decay, (1 + num_updates) / (10 + num_updates))

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Overwrite the weights."""
        for tensors, averages in zip(self._tensors, self._averages, strict=True):
            for name in self._begun:
                tensors[name].copy_(averages[name])

    def state(self, member: int) -> dict[str, torch.Tensor]:
        """Return a member's averages and when they began, by name; not copies."""
        averages = {name: self._averages[member][name] for name in self._begun}
        begun = {name: torch.tensor(step) for name, step in self._begun.items()}
        return {**prefixed("weights", averages), **prefixed("begun", begun)}

    def load(self, states: Sequence[Tensors]) -> None:
        """Go on with what `state` returned for each of K members; `begin` comes after it."""
        self._begun = {name: int(step) for name, step in compartment("begun", states[0]).items()}
        self._averages = [
            {name: torch.empty_like(tensors[name]).copy_(own) for name, own in compartment("weights", state).items()}
            for tensors, state in zip(self._tensors, states, strict=True)
        ]


def moved_tensors(workload: Workload, phase: Phase) -> frozenset[str]:
    """Return the names of a deployable's tensors that a phase moves: what it trains, and BatchNorm's statistics."""
    moved: list[torch.Tensor] = [buffer for layer in moving_norms(phase) for buffer in layer.buffers(recurse=False)]
    for group in workload.groups:
        pairs = zip(group.param_names, group.params, strict=True)
        moved += [parameter for name, parameter in pairs if name in phase.trained]
    places = {_place(tensor) for tensor in moved}  # a bank's members are views of its tensors
    return frozenset(name for name, tensor in workload.trained_tensors(0).items() if _place(tensor) in places)


def require_one_average(workload: Workload) -> None:
    """See that a workload goes with an optimizer that makes an average of its weights from its first step on.

    Raises:
        SettingError: it has several phases, or running statistics, which would be those of other weights than are
            evaluated.
    """
    if len(workload.phases) > 1:
        raise SettingError(
            "optimizer: a schedule-free one averages from its first step on, which phases that train other parameters "
            "do not share; expected a strategy of one phase, or another optimizer"
        )
    names = {name for name, _ in workload.deployables[0].named_buffers()}
    if names & moved_tensors(workload, next(iter(workload.phases))):
        raise SettingError(
            "optimizer: a schedule-free one evaluates other weights than it trains, to which BatchNorm's statistics "
            "would not belong; expected strategy.batchnorm=eval, a backbone without BatchNorm, or another optimizer"
        )


def _place(tensor: torch.Tensor) -> int:
    return own_part(tensor).untyped_storage().data_ptr()
