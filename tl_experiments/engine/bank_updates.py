"""The gradients of K members side by side become new weights, each under its own settings and rate."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from tl_experiments.engine.bank_rules import Rule, Settings, as_columns, like
from tl_experiments.engine.clipping import clip_members, member_norms
from tl_experiments.engine.rates import NOTHING, Done, Rates, ScheduleFactory
from tl_experiments.models.param_groups import ParamGroup


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
        clip_grad_norm: float | None,
    ) -> None:
        """Keep one state for each parameter.

        Args:
            groups: of parameters (K, ...).
            rule: of the optimizers' class.
            settings: of K optimizers.
            schedulers: of K members.
            clip_grad_norm: what the norm of each member's gradient is at most; None lets it be.
        """
        if any(group.l2_sp for group in groups):
            raise ValueError("heads have no pretrained weights to be pulled to")
        self._groups = groups
        self._rule = rule
        self._settings = settings
        self._schedulers = schedulers
        self._clip_grad_norm = clip_grad_norm
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

    @property
    def average(self) -> None:
        return None

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
        finite = self._look_at_gradients(finite)
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

    def _look_at_gradients(self, finite: torch.Tensor) -> torch.Tensor:
        """Clip the gradients where that is asked for; returns the members (K,) for which all is finite."""
        parameters = [parameter for group in self._groups for parameter in group.params]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self._clip_grad_norm is not None:
            norms = member_norms(gradients)
            clip_members(gradients, norms, max_norm=self._clip_grad_norm)
            return finite & norms.isfinite()
        for gradient in gradients:
            finite = finite & torch.linalg.vector_norm(gradient.flatten(1), dim=1).isfinite()
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
