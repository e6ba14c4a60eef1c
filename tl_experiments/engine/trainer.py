"""The one loop: it trains whatever a workload holds and yields a record of everything it does."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Literal, cast

import torch
from torch import nn
from torch.optim import Optimizer

from tl_experiments.data.batches import Batch
from tl_experiments.engine.best import BestWeights
from tl_experiments.engine.evaluate import EvaluationSteps, Position, evaluate
from tl_experiments.engine.metrics import Means, Sums, member_losses
from tl_experiments.engine.optimizers import OptimizerFactory, base_lr, make_optimizer
from tl_experiments.engine.records import EpochRecord, FinalRecord, Progress, Record
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.seeding import seed_step
from tl_experiments.runtime.signals import shielded
from tl_experiments.strategies.base import Phase, Workload

ScheduleFactory = Callable[..., Schedule]


class Trainer:
    """Trains a workload's phases in order; the caller consumes the records, and stops early by leaving the loop."""

    def __init__(
        self,
        workload: Workload,
        *,
        optimizer: OptimizerFactory,
        scheduler: ScheduleFactory,
        seed: int,
        device: torch.device,
        log_every_steps: int,
        compile: bool,
    ) -> None:
        """Prepare the optimizer; nothing is computed yet.

        Args:
            workload: what to train, on the device.
            optimizer: lacks its parameters only.
            scheduler: lacks the optimizer, total_steps and steps_per_epoch.
            seed: of dropout.
            device: of the batches.
            log_every_steps: steps between two waits for the device.
            compile: run the modules under `torch.compile`.
        """
        self._workload = workload
        self._optimizer: Optimizer = make_optimizer(optimizer, workload.groups)
        self._scheduler = scheduler
        self._seed = seed
        self._device = device
        self._log_every_steps = log_every_steps
        self._networks: list[nn.Module] = [
            cast(nn.Module, torch.compile(phase.module)) if compile else phase.module for phase in workload.phases
        ]
        self._best = BestWeights([workload.trained_tensors(member) for member in range(workload.num_members)])
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._lr = base_lr(self._optimizer)  # of the last update
        self._step = 0  # optimizer updates so far
        self._epoch = 0  # epochs so far, over all phases
        self._num_epochs = sum(phase.epochs for phase in workload.phases)

    def fit(self) -> Iterator[Record]:
        """Train all phases.

        Yields:
            Progress for every step, EpochRecord for every epoch.

        Raises:
            RunFailed: the loss is no longer finite; noticed at the next sync.
        """
        for phase, module in zip(self._workload.phases, self._networks, strict=True):
            schedule = self._begin_schedule(phase)
            for _ in range(phase.epochs):
                self._epoch += 1
                yield from self._fit_epoch(phase, module, schedule)

    def _begin_schedule(self, phase: Phase) -> Schedule:
        """Every phase has the whole schedule, from the rates that the groups began with."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak
            group.pop("initial_lr", None)  # where PyTorch's schedulers keep what they began with
        steps_per_epoch = len(phase.train)
        return self._scheduler(
            self._optimizer, total_steps=phase.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch
        )

    def test(self) -> Iterator[Record]:
        """Put the best weights back and see the test split once.

        Yields:
            Progress for every step, then one FinalRecord.
        """
        self._best.restore()
        evaluation = yield from self._evaluate(self._workload.phases[-1], self._networks[-1], "test")
        yield FinalRecord(
            loss=evaluation.means.loss,
            acc=evaluation.means.acc,
            best_epoch=tuple(self._best.epoch),
            best_val_acc=tuple(self._best.acc),
            logits=evaluation.logits.cpu(),
            labels=evaluation.labels[0].cpu(),
        )

    def _fit_epoch(self, phase: Phase, module: nn.Module, schedule: Schedule) -> Iterator[Record]:
        start = time.perf_counter()
        train = yield from self._train_epoch(phase, module, schedule)
        train_seconds = time.perf_counter() - start
        validation = yield from self._evaluate(phase, module, "val")
        self._require_finite("validation", validation.means, where=f"epoch {self._epoch}")
        schedule.after_epoch(validation.means.acc[0])
        yield EpochRecord(
            phase=phase.name,
            epoch=self._epoch,
            num_epochs=self._num_epochs,
            train_loss=train.loss,
            train_acc=train.acc,
            val_loss=validation.means.loss,
            val_acc=validation.means.acc,
            lr=(self._lr,) * self._workload.num_members,
            improved=self._best.update(self._epoch, validation.means),
            images_per_second=phase.train.num_samples / train_seconds,
            seconds=time.perf_counter() - start,
        )

    def _train_epoch(self, phase: Phase, module: nn.Module, schedule: Schedule) -> Generator[Progress, None, Means]:
        module.train()
        for held in phase.held_in_eval:
            held.eval()
        sums = Sums(num_members=self._workload.num_members, device=self._device)
        start, num_steps, num_seen = time.perf_counter(), len(phase.train), 0
        for step, batch in enumerate(phase.train.epoch(self._epoch), start=1):
            with shielded():  # a run that is stopped ends after the step, not inside it
                self._update(phase, module, batch, sums)
                schedule.after_step()
            num_seen += batch.labels.shape[1]
            means = sums.means() if step % self._log_every_steps == 0 or step == num_steps else None
            if means is not None:
                self._require_finite("training", means, where=f"epoch {self._epoch}, by step {step}")
            yield Progress(
                phase=phase.name,
                stage="train",
                epoch=self._epoch,
                num_epochs=self._num_epochs,
                step=step,
                num_steps=num_steps,
                images_per_second=num_seen / (time.perf_counter() - start),
                loss=means and means.loss,
                acc=means and means.acc,
            )
        return sums.means()

    def _require_finite(self, kind: str, means: Means, *, where: str) -> None:
        if not all(map(math.isfinite, means.loss)):
            raise RunFailed(f"the {kind} loss is not finite in {where}; try a smaller lr, or scheduler.warmup_epochs=1")

    def _update(self, phase: Phase, module: nn.Module, batch: Batch, sums: Sums) -> None:
        """Make one optimizer step."""
        seed_step(self._seed, self._step)
        with phase.train_precision.autocast():
            logits = module(batch.inputs)
        losses = member_losses(logits, batch.labels)
        losses.mean(dim=1).sum().backward()  # members share no parameter, so that each gets its own gradient
        self._lr = base_lr(self._optimizer)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        sums.add(logits.detach(), batch.labels, losses.detach())
        self._step += 1

    def _evaluate(self, phase: Phase, module: nn.Module, stage: Literal["val", "test"]) -> EvaluationSteps:
        return evaluate(
            module,
            phase.val if stage == "val" else phase.test,
            num_members=self._workload.num_members,
            device=self._device,
            precision=phase.infer_precision,
            position=Position(phase.name, stage, self._epoch, self._num_epochs),
        )
