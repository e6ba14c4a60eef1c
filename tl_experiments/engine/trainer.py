"""The one loop: it trains whatever a workload holds and yields a record of everything it does."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import cast

import torch
from torch import nn

from tl_experiments.data.batches import Batch, Batches
from tl_experiments.engine.averages import Averages, moved_tensors, require_one_average
from tl_experiments.engine.best import BestWeights
from tl_experiments.engine.calibration import fit_temperature
from tl_experiments.engine.evaluate import EvaluationSteps, Position, evaluate
from tl_experiments.engine.evaluated import Evaluated
from tl_experiments.engine.members import Members, patience_in
from tl_experiments.engine.metrics import Means, Sums, batch_sums
from tl_experiments.engine.micro_batches import MicroBatches
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.rates import Done
from tl_experiments.engine.records import Diverged, EpochRecord, FinalRecord, Halved, Progress, Record, Stage
from tl_experiments.engine.running_statistics import RunningStatistics
from tl_experiments.engine.scores import score
from tl_experiments.engine.state import MemberState, TrainerState, compartment, prefixed
from tl_experiments.engine.stretches import Stretch, stretches
from tl_experiments.engine.synchronised import synchronise_norms, synchronised, unsynchronised
from tl_experiments.engine.training_plan import TrainingPlan, make_training_plan
from tl_experiments.engine.updates import Updates
from tl_experiments.models.sharded import put, whole_tensors
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.runtime.seeding import seed_step
from tl_experiments.strategies.base import Phase, Workload
from tl_experiments.strategies.materials import SplitBatches


class Trainer:
    """Trains a workload's phases in order; the caller consumes the records, and stops early by leaving the loop.

    Whenever it yields it stands between two steps: `state` says where, and another trainer that is given it with
    `load` before it begins goes on from there with the same bits.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        updates: Updates,
        device: torch.device,
        options: TrainingOptions,
        ranks: Ranks = ALONE,
    ) -> None:
        """Prepare; nothing is computed yet.

        Args:
            workload: what to train, on the device.
            updates: of the workload's parameters.
            device: of the batches.
            options: how.
            ranks: of the processes that share each step of the same workload; each has a trainer, and all do the same.

        Raises:
            SettingError: the optimizer makes an average of the weights, which does not go with the workload, or
                BatchNorm cannot be shared by processes on this device.
        """
        if updates.average is not None:
            require_one_average(workload)
        synchronise_norms(workload, device=device, ranks=ranks)
        count, phases = workload.num_members, workload.phases
        self._workload = workload
        self._updates = updates
        self._device = device
        self._options = options
        self._ranks = ranks
        self._micro_batches = MicroBatches(halves=options.halves, size=options.micro_batch, num_processes=ranks.count)
        self._networks: list[nn.Module] = [
            cast(nn.Module, torch.compile(phase.module)) if options.compile else phase.module for phase in phases
        ]
        trained = [workload.trained_tensors(member) for member in range(count)]
        self._best = BestWeights(trained)
        self._averages = Averages(trained, decay=options.ema_decay)
        self._evaluated = Evaluated(trained, averages=self._averages, updates=updates)
        self._num_epochs = sum(phase.epochs for phase in phases)
        *_, last = stretches(phases)
        self._last_schedule = last.schedule_start
        self._members = Members(count, device=device, patience=patience_in(phases, epochs=options.patience))
        self._steps = 0  # optimizer updates so far
        self._epochs = 0  # that are over, over all phases
        self._epoch_steps = 0  # of the epoch that is going on
        self._epoch_samples = 0
        self._sums = Sums(num_members=count, device=device)  # over the epoch that is going on
        self._scores: list[tuple[float, ...]] = []  # val/acc of every epoch that is over
        self._phase = phases[0].name
        self._opened: tuple[Phase, SplitBatches] | None = None  # the phase that goes on, and its batches

    def plan(self) -> TrainingPlan:
        """Say what is going to be trained; asked before it is."""
        return make_training_plan(self._workload, lrs=self._updates.lr)

    def fit(self) -> Iterator[Record]:
        """Train all phases, or what is left of them, while any member goes on.

        Yields:
            Progress for every step, EpochRecord for every epoch, Diverged for a member whose loss or gradient is no
            longer finite, which is noticed when the loss is next looked at, Stopped for a member that was not patient
            for longer, after its last epoch, Halved before the first step for which batches are computed in smaller
            parts.

        Raises:
            RunFailed: all members have diverged.
        """
        yield from self._members.told_again()
        for stretch, module in zip(stretches(self._workload.phases), self._networks, strict=True):
            if self._epochs < stretch.end and self._members.any_left:
                self._begin(stretch)
                trained = synchronised(module, self._ranks) if stretch.phase.solve is None else module
            while self._epochs < stretch.end and self._members.any_left:
                yield from self._fit_epoch(stretch, module, trained, epoch=self._epochs + 1)

    def _begin(self, stretch: Stretch) -> None:
        """Begin a phase, or go on with it: what stands still has no gradient, and the schedule is where it was."""
        phase = stretch.phase
        self._phase = phase.name
        for group in self._workload.groups:
            for name, parameter in zip(group.param_names, group.params, strict=True):
                parameter.requires_grad_(name in phase.trained)
        self._averages.begin(moved_tensors(self._workload, phase), step=self._steps, solved=phase.solve is not None)
        steps_per_epoch = len(self._batches(phase).train)
        self._updates.begin(
            total_steps=stretch.schedule_epochs * steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            lr_scale=phase.lr_scale,
            done=Done(scores=self._scores[stretch.schedule_start :], steps=self._epoch_steps),
        )

    def _batches(self, phase: Phase) -> SplitBatches:
        """Open a phase's batches, once those of the phase before are let go of."""
        if self._opened is None or self._opened[0] is not phase:
            self._opened = None
            self._opened = phase, phase.open()
        return self._opened[1]

    def test(self) -> Iterator[Record]:
        """Put the best weights back, see val again to calibrate them, and the test split once.

        Yields:
            Progress for every step, then one FinalRecord.
        """
        self._best.restore()
        phase, module = self._workload.phases[-1], self._networks[-1]
        val, test = self._batches(phase).at_the_end()
        seen = yield from self._evaluate(phase, module, "calibration", epoch=self._epochs, batches=val)
        temperatures = [fit_temperature(logits, seen.labels[0]) for logits in seen.logits]
        evaluation = yield from self._evaluate(phase, module, "test", epoch=self._epochs, batches=test)
        logits, labels = evaluation.logits.cpu(), evaluation.labels[0].cpu()
        yield FinalRecord(
            loss=evaluation.means.loss,
            acc=evaluation.means.acc,
            best_epoch=tuple(self._best.epoch),
            best_val_acc=tuple(self._best.acc),
            scores=tuple(
                score(own, labels, temperature=temperature)
                for own, temperature in zip(logits, temperatures, strict=True)
            ),
            logits=logits,
            labels=labels,
        )

    def state(self) -> TrainerState:
        """Return where training stands; its tensors are the trainer's own, to be read before it goes on.

        All processes ask for it after the same step: each may hold a share of the weights.
        """
        return TrainerState(
            epochs=self._epochs,
            epoch_steps=self._epoch_steps,
            epoch_samples=self._epoch_samples,
            steps=self._steps,
            micro_batch=self._micro_batches.size,
            phase=self._phase,
            members=tuple(self._member_state(member) for member in range(self._workload.num_members)),
        )

    def epoch_sums(self, member: int) -> torch.Tensor:
        """Return a member's sums over the epoch that goes on, (4,) float64: losses, hits, samples, skipped steps."""
        return self._sums.state(member)

    def _member_state(self, member: int) -> MemberState:
        tensors = {
            **prefixed("weights", self._evaluated.trained(member)),
            **prefixed("average", self._averages.state(member)),
            **prefixed("best", self._best.state(member)),
            **prefixed("optimizer", self._updates.state(member)),
            "sums": self._sums.state(member),
            "scores": torch.tensor([scores[member] for scores in self._scores], dtype=torch.float64),
        }
        return MemberState(whole_tensors(tensors, kept=self._ranks.is_first), reason=self._members.reason(member))

    @torch.no_grad()
    def load(self, state: TrainerState) -> None:
        """Go on from a state of the same workload; its members may be fewer than there were."""
        self._epochs, self._epoch_steps, self._steps = state.position
        self._epoch_samples, self._phase = state.epoch_samples, state.phase
        self._micro_batches.size = state.micro_batch
        for member, own in enumerate(state.members):
            for name, tensor in self._workload.trained_tensors(member).items():
                put(tensor, own.tensors[f"weights/{name}"])
            self._best.load(member, compartment("best", own.tensors))
            if own.reason is not None:
                self._members.leave_alone({member: own.reason})
        for _ in self._members.newly_stopped(self._best.epoch, epochs=self._epochs):
            pass  # it was told before, and is told again by `fit`
        tensors = [own.tensors for own in state.members]
        self._averages.load([compartment("average", own) for own in tensors])
        self._updates.load([compartment("optimizer", own) for own in tensors], steps=state.steps)
        self._sums.load([own["sums"] for own in tensors])
        self._scores = list(zip(*(own["scores"].tolist() for own in tensors), strict=True))

    def _fit_epoch(self, stretch: Stretch, module: nn.Module, trained: nn.Module, *, epoch: int) -> Iterator[Record]:
        """Train an epoch of `trained`, which is the module, or knows of the other processes; then validate."""
        phase = stretch.phase
        start, behind = time.perf_counter(), self._epoch_samples
        if phase.solve is None:
            yield from self._train_epoch(phase, trained, epoch=epoch)
            train = self._sums.means()
        else:
            phase.solve(self._batches(phase).train, epoch - stretch.start)
            train = (yield from self._evaluate(phase, module, "train", epoch=epoch)).means
            self._epoch_samples += self._batches(phase).train.num_samples
        train_seconds = time.perf_counter() - start
        num_seen = self._epoch_samples - behind  # in this life of the run
        with self._evaluated.in_place():
            validation = yield from self._evaluate(phase, module, "val", epoch=epoch)
            yield from self._newly_diverged("validation", validation.means, where=f"epoch {epoch}")
            # Never by a loss that is not finite.
            improved = self._best.update(epoch, validation.means, ended=self._members.ended)
        self._updates.after_epoch(validation.means.acc)
        self._scores.append(validation.means.acc)
        self._epochs, self._epoch_steps, self._epoch_samples = epoch, 0, 0
        self._sums = Sums(num_members=self._workload.num_members, device=self._device)
        yield EpochRecord(
            phase=phase.name,
            epoch=epoch,
            num_epochs=self._num_epochs,
            train_loss=train.loss,
            train_acc=train.acc,
            val_loss=validation.means.loss,
            val_acc=validation.means.acc,
            lr=self._updates.lr if phase.solve is None else (),
            candidate=phase.candidates[epoch - stretch.start - 1] if phase.candidates else {},
            schedule_epoch=self._schedule_epoch(stretch, epoch),
            improved=improved,
            images_per_second=num_seen / train_seconds,
            seconds=time.perf_counter() - start,
            num_skipped=train.num_skipped,
        )
        yield from self._members.newly_stopped(self._best.epoch, epochs=epoch)

    def _schedule_epoch(self, stretch: Stretch, epoch: int) -> int | None:
        is_last = stretch.schedule_start == self._last_schedule and stretch.phase.solve is None
        return epoch - stretch.schedule_start if is_last else None

    def _train_epoch(self, phase: Phase, module: nn.Module, *, epoch: int) -> Iterator[Record]:
        module.train()
        for held in phase.held_in_eval:
            held.eval()
        statistics = RunningStatistics(phase.module)
        batches = self._batches(phase).train
        start, behind, num_steps = time.perf_counter(), self._epoch_samples, len(batches)
        for batch in batches.epoch(epoch, skip=self._epoch_steps, ranks=self._ranks):
            whole = self._micro_batches.size
            self._update(phase, module, batch, statistics)
            if self._micro_batches.size not in (None, whole):
                yield Halved(self._micro_batches.size)
            step = self._epoch_steps
            means = self._means(is_looked_at=step % self._options.log_every_steps == 0, is_last=step == num_steps)
            known = step == num_steps or not self._options.skips_nonfinite  # else all so far may have been skipped
            if means is not None and known:
                yield from self._newly_diverged("training", means, where=f"epoch {epoch}, by step {step}")
            yield Progress(
                phase=phase.name,
                stage="train",
                epoch=epoch,
                num_epochs=self._num_epochs,
                step=step,
                num_steps=num_steps,
                images_per_second=(self._epoch_samples - behind) / (time.perf_counter() - start),
                loss=means and means.loss,
                acc=means and means.acc,
            )

    def _means(self, *, is_looked_at: bool, is_last: bool) -> Means | None:
        """Return means over the steps so far, if they are known: a device that is alone is waited for at the end only.

        Several processes wait for theirs, so that all of them know the same after the same step.
        """
        if is_last or (is_looked_at and not self._ranks.is_alone):
            return self._sums.means()
        if is_looked_at:
            self._sums.ask()
        return self._sums.arrived()

    def _newly_diverged(self, kind: str, means: Means, *, where: str) -> Iterator[Diverged]:
        return self._members.newly_diverged(kind, means, where=where, skips=self._options.skips_nonfinite)

    def _update(self, phase: Phase, module: nn.Module, batch: Batch, statistics: RunningStatistics) -> None:
        """Make one optimizer step."""

        def begin_again() -> None:
            phase.module.zero_grad(set_to_none=True)
            statistics.put_back()
            seed_step(self._options.seed, self._steps, rank=self._ranks.rank)

        def backward(part: Batch, is_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
            with nullcontext() if is_last else unsynchronised(module):
                with phase.train_precision.autocast():
                    logits = module(part.inputs)
                losses = self._options.loss(logits, part)
                share = losses.sum(dim=1) / batch.num_in_step
                # Members share no parameter, so that each gets its own gradient.
                (0.0 * share if batch.stands_in else share).sum().backward()
            return logits.detach(), losses.detach()

        statistics.keep()
        seed_step(self._options.seed, self._steps, rank=self._ranks.rank)
        logits, losses = self._micro_batches.run(backward, batch, begin_again=begin_again)
        sums = batch_sums(batch, logits, losses, ranks=self._ranks)
        updated = self._updates.step((sums[3] == 0) & self._members.going_on)
        statistics.put_back_unless(updated.any())
        self._sums.add(sums, updated=updated, skips=self._options.skips_nonfinite)
        self._steps += 1
        self._averages.update(updated, step=self._steps)
        self._epoch_steps += 1
        self._epoch_samples += batch.num_in_step

    def _evaluate(
        self, phase: Phase, module: nn.Module, stage: Stage, *, epoch: int, batches: Batches | None = None
    ) -> EvaluationSteps:
        return evaluate(
            module,
            batches or getattr(self._batches(phase), stage),
            num_members=self._workload.num_members,
            device=self._device,
            precision=phase.infer_precision,
            position=Position(phase.name, stage, epoch, self._num_epochs),
            ranks=self._ranks,
        )
