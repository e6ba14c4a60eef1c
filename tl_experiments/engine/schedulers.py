"""Learning-rate schedules: PyTorch's, each with the moment at which it moves."""

import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR


@dataclass(frozen=True)
class Schedule:
    """A scheduler and when it moves: after every step, after every epoch, or after an epoch by its val/acc."""

    scheduler: LRScheduler
    moves: Literal["step", "epoch", "val"]

    def after_step(self) -> None:
        if self.moves == "step":
            self.scheduler.step()

    def after_epoch(self, val_acc: float) -> None:
        if self.moves == "epoch":
            self.scheduler.step()
        elif self.moves == "val":
            self.scheduler.step(val_acc)  # type: ignore[arg-type]  # ReduceLROnPlateau takes the metric here


def cosine(
    optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int, warmup_epochs: float, min_lr_fraction: float
) -> Schedule:
    """Half a cosine by step, after a linear warmup (Loshchilov & Hutter 2017; Goyal et al. 2017).

    Args:
        optimizer: its groups' rates are the peaks.
        total_steps: at which `min_lr_fraction` of the peak is reached.
        steps_per_epoch: to count the warmup.
        warmup_epochs: 0 begins at the peak.
        min_lr_fraction: in [0, 1].
    """
    warmup = round(warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return min_lr_fraction + (1 - min_lr_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return Schedule(LambdaLR(optimizer, factor), "step")


def step(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int, step_size: int, gamma: float) -> Schedule:  # noqa: ARG001
    """The rate times `gamma` every `step_size` epochs, as `StepLR`."""
    return Schedule(StepLR(optimizer, step_size=step_size, gamma=gamma), "epoch")


def constant(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> Schedule:  # noqa: ARG001
    """The same rate throughout."""
    return Schedule(LambdaLR(optimizer, lambda _: 1.0), "epoch")


def onecycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,  # noqa: ARG001
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
) -> Schedule:
    """One rise to the groups' rates and one fall, by step (Smith & Topin 2018); momentum stays as the optimizer has it.

    Args:
        optimizer: its groups' rates are the peaks.
        total_steps: of the cycle.
        steps_per_epoch: not used.
        pct_start: share of the steps that rise.
        div_factor: first rate = peak / div_factor.
        final_div_factor: last rate = first rate / final_div_factor.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    scheduler = OneCycleLR(
        optimizer,
        max_lr=peaks,
        total_steps=total_steps + 1,  # the scheduler is asked once more after the last step
        pct_start=max(pct_start, 2 / (total_steps + 1)),  # a rise takes at least one step
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=False,
    )
    return Schedule(scheduler, "step")


def plateau(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int, factor: float, patience: int) -> Schedule:  # noqa: ARG001
    """The rate times `factor` when val/acc has not risen for more than `patience` epochs, as `ReduceLROnPlateau`."""
    # Its eps would leave alone the rates of groups that are scaled down far.
    return Schedule(ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, eps=0.0), "val")
