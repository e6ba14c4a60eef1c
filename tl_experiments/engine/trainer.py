"""The one loop: it trains whatever a workload holds and yields a record of everything it does."""

import math
import time
from collections.abc import Generator, Iterator
from typing import Literal, cast

import torch
from torch import nn

from tl_experiments.data.batches import Batch
from tl_experiments.engine.best import BestWeights
from tl_experiments.engine.evaluate import EvaluationSteps, Position, evaluate
from tl_experiments.engine.metrics import Means, Sums, member_losses
from tl_experiments.engine.records import Diverged, EpochRecord, FinalRecord, Progress, Record
from tl_experiments.engine.updates import Updates
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.seeding import seed_step
from tl_experiments.runtime.signals import shielded
from tl_experiments.strategies.base import Phase, Workload


class Trainer:
    """Trains a workload's phases in order; the caller consumes the records, and stops early by leaving the loop."""

    def __init__(
        self,
        workload: Workload,
        *,
        updates: Updates,
        seed: int,
        device: torch.device,
        log_every_steps: int,
        compile: bool,
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            workload: what to train, on the device.
            updates: of the workload's parameters.
            seed: of dropout.
            device: of the batches.
            log_every_steps: steps between two looks at the loss; the device is not waited for.
            compile: run the modules under `torch.compile`.
        """
        self._workload = workload
        self._updates = updates
        self._seed = seed
        self._device = device
        self._log_every_steps = log_every_steps
        self._networks: list[nn.Module] = [
            cast(nn.Module, torch.compile(phase.module)) if compile else phase.module for phase in workload.phases
        ]
        self._best = BestWeights([workload.trained_tensors(member) for member in range(workload.num_members)])
        self._diverged: set[int] = set()  # members that are left alone
        self._step = 0  # optimizer updates so far
        self._epoch = 0  # epochs so far, over all phases
        self._num_epochs = sum(phase.epochs for phase in workload.phases)

    def fit(self) -> Iterator[Record]:
        """Train all phases.

        Yields:
            Progress for every step, EpochRecord for every epoch, Diverged for a member whose loss is no longer finite,
            which is noticed when the loss is next looked at.

        Raises:
            RunFailed: no member is left.
        """
        for phase, module in zip(self._workload.phases, self._networks, strict=True):
            steps_per_epoch = len(phase.train)
            self._updates.begin(total_steps=phase.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)
            for _ in range(phase.epochs):
                self._epoch += 1
                yield from self._fit_epoch(phase, module)

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

    def _fit_epoch(self, phase: Phase, module: nn.Module) -> Iterator[Record]:
        start = time.perf_counter()
        train = yield from self._train_epoch(phase, module)
        train_seconds = time.perf_counter() - start
        validation = yield from self._evaluate(phase, module, "val")
        yield from self._newly_diverged("validation", validation.means, where=f"epoch {self._epoch}")
        self._updates.after_epoch(validation.means.acc)
        yield EpochRecord(
            phase=phase.name,
            epoch=self._epoch,
            num_epochs=self._num_epochs,
            train_loss=train.loss,
            train_acc=train.acc,
            val_loss=validation.means.loss,
            val_acc=validation.means.acc,
            lr=self._updates.lr,
            improved=self._best.update(self._epoch, validation.means),  # never by a loss that is not finite
            images_per_second=phase.train.num_samples / train_seconds,
            seconds=time.perf_counter() - start,
        )

    def _train_epoch(self, phase: Phase, module: nn.Module) -> Generator[Record, None, Means]:
        module.train()
        for held in phase.held_in_eval:
            held.eval()
        sums = Sums(num_members=self._workload.num_members, device=self._device)
        start, num_steps, num_seen = time.perf_counter(), len(phase.train), 0
        for step, batch in enumerate(phase.train.epoch(self._epoch), start=1):
            with shielded():  # a run that is stopped ends after the step, not inside it
                self._update(phase, module, batch, sums)
            num_seen += batch.labels.shape[1]
            if step % self._log_every_steps == 0:
                sums.ask()
            means = sums.means() if step == num_steps else sums.arrived()  # waits at the end alone
            if means is not None:
                yield from self._newly_diverged("training", means, where=f"epoch {self._epoch}, by step {step}")
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

    def _newly_diverged(self, kind: str, means: Means, *, where: str) -> Iterator[Diverged]:
        """Leave members alone whose loss is not finite; the others share nothing with them."""
        reason = f"the {kind} loss is not finite in {where}; try a smaller lr, or scheduler.warmup_epochs=1"
        lost = {member for member, loss in enumerate(means.loss) if not math.isfinite(loss)} - self._diverged
        self._diverged |= lost
        if len(self._diverged) == self._workload.num_members:
            raise RunFailed(reason)
        yield from (Diverged(member=member, reason=reason) for member in sorted(lost))

    def _update(self, phase: Phase, module: nn.Module, batch: Batch, sums: Sums) -> None:
        """Make one optimizer step."""
        seed_step(self._seed, self._step)
        with phase.train_precision.autocast():
            logits = module(batch.inputs)
        losses = member_losses(logits, batch.labels)
        losses.mean(dim=1).sum().backward()  # members share no parameter, so that each gets its own gradient
        self._updates.step()
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
