"""What changes the weights after each step: an optimizer and its schedule, for one member or for K side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from tl_experiments.engine.bank_rules import RULES, Rule, Settings, as_columns, like, read_settings
from tl_experiments.engine.optimizer_state import load_optimizer_state, optimizer_state
from tl_experiments.engine.optimizers import OptimizerFactory, base_lr, looks_itself, make_optimizer
from tl_experiments.engine.rates import Rates, ScheduleFactory
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.models.param_groups import ParamGroup


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


class Updates(Protocol):
    """Turns gradients into new weights."""

    @property
    def lr(self) -> tuple[float, ...]:
        """The base rate of the last update, one value per member."""
        ...

    def begin(self, *, total_steps: int, steps_per_epoch: int, lr_scale: float = 1.0, done: Done = NOTHING) -> None:
        """Begin a phase: the whole schedule, from `lr_scale` times the rates that the optimizers began with.

        A schedule is a function of the steps and scores so far, so that one that goes on is played again up to here.
        """
        ...

    def step(self, finite: torch.Tensor) -> torch.Tensor:
        """Update the weights, forget the gradients and move the schedule.

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


class SingleUpdates:
    """One member under any optimizer of PyTorch's kind."""

    def __init__(
        self, groups: Sequence[ParamGroup], *, optimizer: OptimizerFactory, scheduler: ScheduleFactory, fused: bool
    ) -> None:
        self._optimizer: Optimizer = make_optimizer(optimizer, groups, fused=fused)
        self._scheduler = scheduler
        self._schedule: Schedule | None = None
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._lr = base_lr(self._optimizer)
        self._looks_itself = looks_itself(self._optimizer)
        # Where the pulled ones are now: training has not begun, and one that goes on is loaded later.
        self._pulls = [
            (group.pull, group.params, [parameter.detach().clone() for parameter in group.params])
            for group in groups
            if group.pull
        ]

    @property
    def lr(self) -> tuple[float, ...]:
        return (self._lr,)

    def begin(self, *, total_steps: int, steps_per_epoch: int, lr_scale: float = 1.0, done: Done = NOTHING) -> None:
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * lr_scale
            group.pop("initial_lr", None)  # where PyTorch's schedulers keep what they began with
        self._schedule = self._scheduler(self._optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        if done.scores or done.steps:
            self._optimizer._opt_called = True  # type: ignore[attr-defined]  # they were made, by another process
        for scores in done.scores:
            self._move(steps_per_epoch)
            self.after_epoch(scores)
        self._move(done.steps)

    def _move(self, steps: int) -> None:
        for _ in range(steps):
            self._lr = base_lr(self._optimizer)
            if self._schedule is not None:
                self._schedule.after_step()

    def step(self, finite: torch.Tensor) -> torch.Tensor:
        self._lr = base_lr(self._optimizer)
        self._pull()
        gradients = [parameter.grad for parameter in self._parameters() if parameter.grad is not None]
        finite = finite & get_total_norm(gradients).isfinite()
        if self._looks_itself:
            self._optimizer.found_inf = (~finite[0]).float()  # type: ignore[attr-defined]  # as GradScaler tells it
            self._optimizer.step()
        elif finite[0]:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._schedule is not None:
            self._schedule.after_step()
        return finite

    @torch.no_grad()
    def _pull(self) -> None:
        """Add the gradient of pull / 2 times the squared distance from the weights that training began with (L2-SP)."""
        for pull, parameters, origins in self._pulls:
            moved = [(p.grad, p, o) for p, o in zip(parameters, origins, strict=True) if p.grad is not None]
            if moved:
                gradients, weights, starts = (list(tensors) for tensors in zip(*moved, strict=True))
                torch._foreach_add_(gradients, torch._foreach_sub(weights, starts), alpha=pull)

    def _parameters(self) -> Iterator[torch.Tensor]:
        return (parameter for group in self._optimizer.param_groups for parameter in group["params"])

    def after_epoch(self, val_acc: Sequence[float]) -> None:
        if self._schedule is not None:
            self._schedule.after_epoch(val_acc[0])

    def state(self, member: int) -> dict[str, torch.Tensor]:  # noqa: ARG002 - there is one
        return optimizer_state(self._optimizer)

    def load(self, states: Sequence[Mapping[str, torch.Tensor]], *, steps: int) -> None:  # noqa: ARG002 - it knows them
        load_optimizer_state(self._optimizer, states[0])


class BankUpdates:
    """K members in tensors that lead with an axis of members, each with its own settings and rate.

    PyTorch's optimizers take one rate for a tensor. The rules in `bank_rules` are theirs, element by element, so that
    what a member gets depends neither on its neighbours nor on how many there are.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        rule: Rule,
        settings: Sequence[Settings],
        schedulers: Sequence[ScheduleFactory],
    ) -> None:
        """Keep one state for each parameter.

        Args:
            groups: of parameters (K, ...).
            rule: of the optimizers' class.
            settings: of K optimizers.
            schedulers: of K members.
        """
        if any(group.pull for group in groups):
            raise ValueError("heads have no pretrained weights to be pulled to")
        self._groups = groups
        self._rule = rule
        self._settings = settings
        self._schedulers = schedulers
        self._state = {
            parameter: [torch.zeros_like(parameter) for _ in range(rule.num_states)]
            for group in groups
            for parameter in group.params
        }
        self._num_steps = 0
        self._rates: Rates | None = None
        self._lr = tuple(float(settings["lr"]) for settings in self._settings)

    @property
    def lr(self) -> tuple[float, ...]:
        return self._lr

    def begin(self, *, total_steps: int, steps_per_epoch: int, lr_scale: float = 1.0, done: Done = NOTHING) -> None:
        peaks = [float(settings["lr"]) * lr_scale for settings in self._settings]
        self._rates = Rates(peaks, self._schedulers, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        for scores in done.scores:
            self._move(self._rates, steps_per_epoch)
            self.after_epoch(scores)
        self._move(self._rates, done.steps)

    def _move(self, rates: Rates, steps: int) -> None:
        for _ in range(steps):
            self._lr = rates.current
            rates.after_step()

    @torch.no_grad()
    def step(self, finite: torch.Tensor) -> torch.Tensor:
        self._num_steps += 1  # of those that are left out too, as the host does not know of them
        for group in self._groups:
            for gradient in (parameter.grad for parameter in group.params if parameter.grad is not None):
                finite = finite & torch.linalg.vector_norm(gradient.flatten(1), dim=1).isfinite()
        self._lr = self._rates.current if self._rates else self._lr
        for group in self._groups:
            columns = as_columns(
                [
                    self._rule.scalars(settings, lr * group.lr_scale, group.weight_decay, self._num_steps)
                    for settings, lr in zip(self._settings, self._lr, strict=True)
                ],
                device=group.params[0].device,
            )
            for parameter in group.params:
                if parameter.grad is not None:
                    self._apply(parameter, parameter.grad, columns, finite)
                    parameter.grad = None
        if self._rates:
            self._rates.after_step()
        return finite

    def _apply(
        self,
        parameter: nn.Parameter,
        gradient: torch.Tensor,
        columns: Sequence[torch.Tensor],
        finite: torch.Tensor,
    ) -> None:
        state = self._state[parameter]
        if finite.device.type == "cpu" and finite.all():  # on a GPU the host would wait
            self._rule.apply(parameter, gradient, state, columns)
            return
        before = [tensor.clone() for tensor in (parameter, *state)]
        self._rule.apply(parameter, gradient, state, columns)
        for tensor, old in zip((parameter, *state), before, strict=True):
            tensor.copy_(torch.where(like(finite, tensor), tensor, old))

    def after_epoch(self, val_acc: Sequence[float]) -> None:
        if self._rates:
            self._rates.after_epoch(val_acc)

    def state(self, member: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}/{number}": tensor[member]
            for name, tensors in self._named_state()
            for number, tensor in enumerate(tensors)
        }

    @torch.no_grad()
    def load(self, states: Sequence[Mapping[str, torch.Tensor]], *, steps: int) -> None:
        self._num_steps = steps
        for name, tensors in self._named_state():
            for number, tensor in enumerate(tensors):
                for member, state in enumerate(states):
                    tensor[member].copy_(state[f"{name}/{number}"])

    def _named_state(self) -> list[tuple[str, list[torch.Tensor]]]:
        return [
            (name, self._state[parameter])
            for group in self._groups
            for name, parameter in zip(group.param_names, group.params, strict=True)
        ]


def make_updates(
    groups: Sequence[ParamGroup],
    *,
    optimizers: Sequence[OptimizerFactory],
    schedulers: Sequence[ScheduleFactory],
    fused: bool,
) -> Updates:
    """Choose by what is trained: a bank is updated by our own rules, alone or not, anything else by PyTorch's.

    Args:
        groups: all trainable parameters.
        optimizers, schedulers: one per member.
        fused: let PyTorch's optimizers update all parameters in one pass, where they can.

    Raises:
        ValueError: several members that no rule can update together.
    """
    read = [read_settings(factory) for factory in optimizers]
    kinds = {kind for kind, _ in read}
    if all(group.has_member_axis for group in groups) and len(kinds) == 1 and (kind := kinds.pop()) is not None:
        settings = [settings for _, settings in read]
        return BankUpdates(groups, rule=RULES[kind], settings=settings, schedulers=schedulers)
    if len(optimizers) > 1:
        raise ValueError("these members cannot be updated together: they are no bank, or their optimizers differ")
    return SingleUpdates(groups, optimizer=optimizers[0], scheduler=schedulers[0], fused=fused)
