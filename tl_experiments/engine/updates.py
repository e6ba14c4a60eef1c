"""What changes the weights after each step: an optimizer and its schedule, for one member or for K side by side."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch.optim import SGD

from tl_experiments.engine.bank_rules import RULES, read_settings
from tl_experiments.engine.bank_updates import BankUpdates
from tl_experiments.engine.optimizers import OptimizerFactory
from tl_experiments.engine.rates import NOTHING, Done, ScheduleFactory
from tl_experiments.engine.single_updates import SingleUpdates
from tl_experiments.models.param_groups import ParamGroup


class Updates(Protocol):
    """Turns gradients into new weights."""

    @property
    def lr(self) -> tuple[float, ...]:
        """The base rate of the last update, one value per member."""
        ...

    @property
    def average(self) -> AbstractContextManager[None] | None:
        """Has in place, inside, the average that the optimizer makes of its weights; None where it makes none."""
        ...

    def begin(self, *, total_steps: int, steps_per_epoch: int, lr_scale: float = 1.0, done: Done = NOTHING) -> None:
        """Begin a phase: the whole schedule, from `lr_scale` times the rates that the optimizers began with.

        A schedule is a function of the steps and scores so far, so that one that goes on is played again up to here.
        """
        ...

    def step(self, finite: torch.Tensor) -> torch.Tensor:
        """Clip the gradients, update the weights, forget the gradients and move the schedule.

        Args:
            finite: bool (K,), on the device: the members whose loss is finite.

        Returns:
            bool (K,), on the device: the members that were updated. Where the loss or a gradient's norm is not finite,
            weights and what is remembered of gradients stay as they are; the host does not wait to know. (The norm is
            infinite from 1e19 on; the largest element, which is not, takes 30 times as long to find on a CPU.)
        """
        ...

    def after_epoch(self, val_acc: Sequence[float]) -> None: ...

    def state(self, member: int) -> dict[str, torch.Tensor]:
        """Return what is remembered of a member's gradients, by name; not copies."""
        ...

    def load(self, states: Sequence[Mapping[str, torch.Tensor]], *, steps: int) -> None:
        """Go on with what `state` returned for each of K members, after so many steps."""
        ...


def make_updates(
    groups: Sequence[ParamGroup],
    *,
    optimizers: Sequence[OptimizerFactory],
    schedulers: Sequence[ScheduleFactory],
    fused: bool,
    clip_grad_norm: float | None = None,
) -> Updates:
    """Choose by what is trained: a bank is updated by our own rules, alone or not, anything else by PyTorch's.

    Args:
        groups: all trainable parameters.
        optimizers, schedulers: one per member.
        fused: let PyTorch's optimizers update all parameters in one pass, where they can.
        clip_grad_norm: scale a member's gradients down where the norm of all of them together is larger (Pascanu et al.
            2013); None lets them be.

    Raises:
        ValueError: several members that no rule can update together.
    """
    read = [read_settings(factory) for factory in optimizers]
    if not groups:  # all is solved for: nothing is ever asked of any optimizer
        settings = [settings for _, settings in read]
        return BankUpdates((), rule=RULES[SGD], settings=settings, schedulers=schedulers, clip_grad_norm=None)
    kinds = {kind for kind, _ in read}
    if all(group.has_member_axis for group in groups) and len(kinds) == 1 and (kind := kinds.pop()) is not None:
        settings = [settings for _, settings in read]
        return BankUpdates(
            groups, rule=RULES[kind], settings=settings, schedulers=schedulers, clip_grad_norm=clip_grad_norm
        )
    if len(optimizers) > 1:
        raise ValueError("these members cannot be updated together: they are no bank, or their optimizers differ")
    return SingleUpdates(
        groups, optimizer=optimizers[0], scheduler=schedulers[0], fused=fused, clip_grad_norm=clip_grad_norm
    )
