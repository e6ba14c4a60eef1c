"""The learning rates of members that train side by side, each under its own schedule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from tl_experiments.engine import schedulers
from tl_experiments.engine.schedulers import Schedule

ScheduleFactory = Callable[..., Schedule]


@dataclass(frozen=True)
class Done:
    """What is behind a phase that goes on.

    Attributes:
        scores: of each epoch that is over, K values of val/acc.
        steps: of the epoch that is going on.
    """

    scores: Sequence[Sequence[float]]
    steps: int


NOTHING = Done(scores=(), steps=0)


class Rates:
    """One rate per member, moved by PyTorch's schedulers on optimizers that hold nothing but rates."""

    def __init__(
        self,
        peaks: Sequence[float],
        factories: Sequence[ScheduleFactory],
        *,
        total_steps: int,
        steps_per_epoch: int,
    ) -> None:
        """Begin all schedules.

        Args:
            peaks: K rates.
            factories: K schedules; members whose schedules are the same share one, unless it follows their scores. One
                that is not from `schedulers` may look at one rate only: it is shared by members of one rate.
            total_steps: of the phase.
            steps_per_epoch: of the phase.
        """
        self._num_members = len(peaks)
        self._tracks: list[tuple[list[int], torch.optim.Optimizer, Schedule]] = []
        waiting = list(range(len(peaks)))
        while waiting:
            first = waiting[0]
            alike = [
                member
                for member in waiting
                if same(factories[member], factories[first])
                and (peaks[member] == peaks[first] or _moves_each_rate(factories[first]))
            ]
            members = alike if self._begin(alike, peaks, factories, total_steps, steps_per_epoch) else waiting[:1]
            waiting = [member for member in waiting if member not in members]

    def _begin(
        self,
        members: list[int],
        peaks: Sequence[float],
        factories: Sequence[ScheduleFactory],
        total_steps: int,
        steps_per_epoch: int,
    ) -> bool:
        """Begin one schedule for members; for the first alone, and False, where it follows the score of one."""
        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": peaks[member]} for member in members]
        optimizer = torch.optim.SGD(groups)
        schedule = factories[members[0]](optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        if schedule.moves == "val" and len(members) > 1:
            self._begin(members[:1], peaks, factories, total_steps, steps_per_epoch)
            return False
        optimizer.step()  # changes nothing, and keeps schedulers from warning that no step was made
        self._tracks.append((members, optimizer, schedule))
        return True

    @property
    def current(self) -> tuple[float, ...]:
        """The rates of the next update."""
        rates = [0.0] * self._num_members
        for members, optimizer, _ in self._tracks:
            for member, group in zip(members, optimizer.param_groups, strict=True):
                rates[member] = float(group["lr"])
        return tuple(rates)

    def after_step(self) -> None:
        for _, _, schedule in self._tracks:
            schedule.after_step()

    def after_epoch(self, val_acc: Sequence[float]) -> None:
        for members, _, schedule in self._tracks:
            schedule.after_epoch(val_acc[members[0]])


def _moves_each_rate(factory: ScheduleFactory) -> bool:
    """Whether a schedule of several groups gives each the rates that it would have alone."""
    function = factory.func if isinstance(factory, partial) else factory
    return getattr(function, "__module__", None) == schedulers.__name__


def same(first: ScheduleFactory, second: ScheduleFactory) -> bool:
    """Whether two factories are one function, or make the same call of one function."""
    if isinstance(first, partial) and isinstance(second, partial):
        return (first.func, first.args, first.keywords) == (second.func, second.args, second.keywords)
    return first is second
