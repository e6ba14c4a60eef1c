"""One member's gradients become new weights under any optimizer of PyTorch's kind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from tl_experiments.engine.optimizer_state import load_optimizer_state, optimizer_state
from tl_experiments.engine.optimizers import OptimizerFactory, averaged, averages, base_lr, looks_itself, make_optimizer
from tl_experiments.engine.rates import NOTHING, Done, ScheduleFactory
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.models.param_groups import ParamGroup
from tl_experiments.models.sharded import whole


class SingleUpdates:
    """One member under any optimizer of PyTorch's kind."""

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        optimizer: OptimizerFactory,
        scheduler: ScheduleFactory,
        fused: bool,
        clip_grad_norm: float | None,
    ) -> None:
        self._optimizer: Optimizer = make_optimizer(optimizer, groups, fused=fused)
        self._clip_grad_norm = clip_grad_norm
        self._scheduler = scheduler
        self._schedule: Schedule | None = None
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._lr = base_lr(self._optimizer)
        self._looks_itself = looks_itself(self._optimizer)
        # Where the pulled ones are now: training has not begun, and one that goes on is loaded later.
        self._pulls = [
            (group.l2_sp, group.params, [parameter.detach().clone() for parameter in group.params])
            for group in groups
            if group.l2_sp
        ]

    @property
    def lr(self) -> tuple[float, ...]:
        return (self._lr,)

    @property
    def average(self) -> AbstractContextManager[None] | None:
        return averaged(self._optimizer) if averages(self._optimizer) else None

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
        trained = [parameter for parameter in self._parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        finite = finite & whole(norm).isfinite()
        if self._clip_grad_norm is not None:
            clip_grads_with_norm_(trained, self._clip_grad_norm, norm)
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
