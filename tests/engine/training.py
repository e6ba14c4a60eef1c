"""Trainers whose options a test chooses, and what they tell."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from tests.engine.test_trainer import CPU
from tl_experiments.engine import schedulers
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord, FinalRecord, Record
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.strategies.base import Workload

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def make_trainer(
    workload: Workload,
    *optimizers: Callable[..., Any],
    clip_grad_norm: float | None = None,
    schedule: Callable[..., schedulers.Schedule] = schedulers.constant,
    **options: Any,
) -> Trainer:
    """A trainer whose members have each an optimizer, or all the same."""
    count = workload.num_members
    updates = make_updates(
        workload.groups,
        optimizers=optimizers if len(optimizers) == count else [*(optimizers or [SGD])] * count,
        schedulers=[schedule] * count,
        fused=True,
        clip_grad_norm=clip_grad_norm,
    )
    return Trainer(workload, updates=updates, device=CPU, options=TrainingOptions(seed=7, log_every_steps=2, **options))


def of_member(records: Sequence[Record], member: int, *, until: int = 10**6) -> list[object]:
    """What was told of one member's epochs and test, but for times."""
    told: list[object] = []
    for record in records:
        if (isinstance(record, EpochRecord) and record.epoch <= until) or isinstance(record, FinalRecord):
            metrics = record.metrics(member)
            told.append({name: value for name, value in metrics.items() if not name.startswith("perf/")})
    return told
