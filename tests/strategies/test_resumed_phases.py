"""A run that goes on from any side of the boundary between two phases has the bits of one that was never stopped."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord, FinalRecord, Progress, Record
from tl_experiments.engine.schedulers import cosine
from tl_experiments.engine.state import TrainerState
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.gradual import Gradual
from tl_experiments.strategies.lp_ft import LpFt
from tl_experiments.strategies.materials import Materials

SETTINGS: dict[str, Any] = {"batchnorm": "train", "backbone_lr_scale": 0.5, "layer_decay": 0.7, "l2_sp": 0.01}
LAYERS = {
    "lp_ft": LpFt(probe_epochs=2, probe_lr_scale=3.0, **SETTINGS),
    "gradual": Gradual(every_epochs=1, **SETTINGS),
}
OPTIMIZERS = {"adamw": torch.optim.AdamW, "momentum": functools.partial(torch.optim.SGD, momentum=0.9)}
EPOCHS, STEPS = 3, 3  # of 8, 8 and 4 samples


@pytest.fixture
def begin(materialise: Callable[..., Materials]) -> Callable[..., tuple[Trainer, Workload]]:
    def begin(strategy: Strategy, optimizer: str) -> tuple[Trainer, Workload]:
        backbone = timm_backbone(name="test_efficientnet", weights=None, image_size=32, preferred_size=None, seed=0)
        workload = strategy.prepare(materialise(backbone=backbone, epochs=EPOCHS))
        updates = make_updates(
            workload.groups,
            optimizers=[functools.partial(OPTIMIZERS[optimizer], lr=1e-2)],
            schedulers=[functools.partial(cosine, warmup_epochs=0.5, min_lr_fraction=0.0)],
            fused=True,
        )
        options = TrainingOptions(seed=0, log_every_steps=1)
        return Trainer(workload, updates=updates, device=torch.device("cpu"), options=options), workload

    return begin


def to_the_end(trainer: Trainer, workload: Workload) -> tuple[str, list[tuple], FinalRecord]:
    """What must be the same: weights, all epochs from here on and the test."""
    epochs = [bits(record) for record in trainer.fit() if isinstance(record, EpochRecord)]
    last = workload.weights_sha256(0)
    [final] = [record for record in trainer.test() if isinstance(record, FinalRecord)]
    return last + workload.weights_sha256(0), epochs, final


def bits(record: EpochRecord) -> tuple:
    return (record.phase, record.epoch, record.train_loss, record.val_loss, record.val_acc, record.lr, record.improved)


def saved(state: TrainerState) -> TrainerState:
    """As a file would hold it."""
    members = (replace(own, tensors={name: t.clone() for name, t in own.tensors.items()}) for own in state.members)
    return replace(state, members=tuple(members))


def places(workload: Workload) -> Iterator[tuple[str, Callable[[Record], bool]]]:
    """The last step before, the end of the epoch at, and the first step after each boundary."""
    end = 0
    for phase in workload.phases[:-1]:
        end += phase.epochs
        yield f"last step of {phase.name}", functools.partial(_is_step, epoch=end, step=STEPS)
        yield f"end of {phase.name}", functools.partial(_is_end, epoch=end)
        yield f"first step after {phase.name}", functools.partial(_is_step, epoch=end + 1, step=1)


def _is_step(record: Record, *, epoch: int, step: int) -> bool:
    return isinstance(record, Progress) and (record.stage, record.epoch, record.step) == ("train", epoch, step)


def _is_end(record: Record, *, epoch: int) -> bool:
    return isinstance(record, EpochRecord) and record.epoch == epoch


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_going_on_at_a_boundary_of_phases_changes_no_bit(
    kind: str, optimizer: str, begin: Callable[..., tuple[Trainer, Workload]]
) -> None:
    digest, epochs, final = to_the_end(*begin(LAYERS[kind], optimizer))
    assert len({epoch[0] for epoch in epochs}) == len(begin(LAYERS[kind], optimizer)[1].phases) > 1
    for place, is_there in places(begin(LAYERS[kind], optimizer)[1]):
        stopped, _ = begin(LAYERS[kind], optimizer)
        state = next(saved(stopped.state()) for record in stopped.fit() if is_there(record))
        trainer, workload = begin(LAYERS[kind], optimizer)
        trainer.load(state)
        again, rest, tested = to_the_end(trainer, workload)
        assert (again, rest) == (digest, epochs[state.epochs :]), place
        assert torch.equal(tested.logits, final.logits), place


@pytest.mark.parametrize(
    ("kind", "schedules"),
    [("lp_ft", [(3.0, 2), (1.0, EPOCHS)]), ("gradual", [(1.0, EPOCHS)])],
    ids=["lp_ft: one for each phase", "gradual: one for all"],
)
def test_schedules_begin_and_end_where_the_strategy_says(
    kind: str, schedules: list[tuple[float, int]], begin: Callable[..., tuple[Trainer, Workload]]
) -> None:
    """The rate of the last update of every epoch; a run that goes on would share a fault with one that does not."""
    _, epochs, _ = to_the_end(*begin(LAYERS[kind], "adamw"))
    warmup = round(0.5 * STEPS)
    expected = [
        1e-2 * scale * 0.5 * (1 + math.cos(math.pi * (epoch * STEPS - 1 - warmup) / (length * STEPS - warmup)))
        for scale, length in schedules
        for epoch in range(1, length + 1)
    ]
    assert [epoch[5][0] for epoch in epochs] == pytest.approx(expected)
