"""The learning-rate range test (Smith 2017): the rate rises from step to step, and the loss says where it is well."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tl_experiments.data.batches import Batch, Batches
from tl_experiments.engine.records import Progress
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.engine.trainer import Trainer
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.strategies.base import Phase, Workload
from tl_experiments.strategies.materials import SplitBatches

FIRST, LAST = 1e-7, 10.0  # rates
NUM_STEPS = 100
SMOOTHING = 0.95  # of the exponential mean of losses, whose bias is corrected
BLOWN_UP = 4.0  # times the smallest smoothed loss, at which the test ends
SMALLEST_FALL = 1e-3  # of the loss, as a share of the first
FEWEST = 10  # steps from which a slope can be told

MakeTrainer = Callable[[Workload, Callable[..., Schedule]], Trainer]


@dataclass(frozen=True)
class RangeTest:
    """What the test showed.

    Attributes:
        rates: of each step, rising.
        losses: mean over each step's batch, before its update.
        smoothed: exponential mean of the losses.
        suggestion: a rate to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float


def range_test(
    workload: Workload,
    make_trainer: MakeTrainer,
    *,
    num_steps: int = NUM_STEPS,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> RangeTest:
    """Train the last phase of a lone member for some steps, and undo it: weights and generators stand where they stood.

    Args:
        workload: about to be trained.
        make_trainer: from a workload and a schedule, whose peak is `FIRST`; looks at no loss later than at the next
            step, and ends where one is not finite.
        num_steps: at most; it ends where the loss has blown up.
        on_step: called with (steps done, `num_steps`).

    Raises:
        SettingError: no phase takes gradient steps, or the loss is not finite before anything can be told.
        DataError: an image cannot be decoded.
    """
    phase = workload.phases[-1]
    if phase.solve is not None:
        raise SettingError(f"lr=auto: {phase.name} takes no gradient steps, and has no lr; expected a number")
    rates, losses = [], []
    with _undone(workload):
        trainer = make_trainer(replace(workload, phases=(_first_steps(phase, num_steps),)), _rise)
        for loss in _step_losses(trainer):
            rates.append(_rate(len(rates), num_steps))
            losses.append(loss)
            on_step(len(losses), num_steps)
            if _blown_up(losses):
                break
    if len(losses) < FEWEST:
        raise SettingError(f"lr=auto: the loss is not finite after {len(losses)} steps; expected a number for lr")
    smoothed = list(_smooth(losses))
    if min(smoothed) > (1 - SMALLEST_FALL) * smoothed[0]:
        raise SettingError("lr=auto: the loss falls at no rate, so that nothing can be told; expected a number for lr")
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed), suggest(rates, smoothed))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate half-way down the longest valley: the longest run of ever smaller losses, gaps allowed.

    As `valley` in fastai, which has it from ESRI.

    Args:
        rates: rising, N of them.
        losses: smoothed, N of them.
    """
    lengths = [1] * len(losses)
    for place, loss in enumerate(losses):
        lengths[place] += max((lengths[other] for other in range(place) if losses[other] > loss), default=0)
    end = max(range(len(losses)), key=lengths.__getitem__)
    start = end - lengths[end] + 1
    return rates[start + (end - start) // 2]


@contextmanager
def _undone(workload: Workload) -> Iterator[None]:
    """Put everything that training moves back when the block ends."""
    before = {name: tensor.detach().clone() for name, tensor in workload.trained_tensors(0).items()}
    cpu, gpu = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in workload.trained_tensors(0).items():
                tensor.copy_(before[name])
        for group in workload.groups:
            for parameter in group.params:
                parameter.grad = None
        torch.set_rng_state(cpu)
        if gpu:
            torch.cuda.set_rng_state_all(gpu)


def _step_losses(trainer: Trainer) -> Iterator[float]:
    """Yield the mean loss of each step, from the sums over all so far."""
    total, count = 0.0, 0.0
    with suppress(RunFailed):  # a loss that is not finite, which is where the test ends
        for record in trainer.fit():
            if not isinstance(record, Progress):
                continue
            loss, _, samples, *_ = trainer.epoch_sums(0).tolist()
            if not math.isfinite(loss):
                return
            yield (loss - total) / (samples - count)
            total, count = loss, samples
            if record.step == record.num_steps:
                return


def _first_steps(phase: Phase, num_steps: int) -> Phase:
    def opened() -> SplitBatches:
        batches = phase.open()
        return replace(batches, train=_FirstSteps(batches.train, num_steps))

    return replace(phase, epochs=1, open=opened, continues=False, lr_scale=1.0)


@dataclass(frozen=True)
class _FirstSteps(Batches):
    """The first steps of training as one epoch, however many epochs they take."""

    batches: Batches
    num_steps: int

    @property
    def num_samples(self) -> int:
        return sum(batch.num_samples for batch in self.epoch(1))

    def __len__(self) -> int:
        return self.num_steps

    def epoch(self, epoch: int, *, skip: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
        """Yield the batches of this epoch and of as many after it as it takes."""
        endless = itertools.chain.from_iterable(
            self.batches.epoch(later, ranks=ranks) for later in itertools.count(epoch)
        )
        return itertools.islice(endless, skip, self.num_steps)


def _rate(step: int, num_steps: int) -> float:
    return FIRST * (LAST / FIRST) ** (step / max(1, num_steps - 1))


def _rise(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> Schedule:  # noqa: ARG001
    """From the groups' rates, in equal ratios, to LAST / FIRST times these."""
    return Schedule(LambdaLR(optimizer, partial(_factor, total_steps=total_steps)), "step")


def _factor(step: int, *, total_steps: int) -> float:
    return _rate(step, total_steps) / FIRST


def _smooth(losses: Sequence[float]) -> Iterator[float]:
    mean = 0.0
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        yield mean / (1 - SMOOTHING**step)


def _blown_up(losses: Sequence[float]) -> bool:
    smoothed = list(_smooth(losses))
    return len(losses) > FEWEST and smoothed[-1] > BLOWN_UP * min(smoothed)
