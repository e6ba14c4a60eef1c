"""Heads on made-up features, trained by the project's own engine, timed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from plain_loop import synchronise
from torch import nn

from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.schedulers import cosine
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.runtime.precision import Precision
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Phase, Workload, names
from tl_experiments.strategies.materials import SplitBatches

BATCH_SIZE, LOG_EVERY_STEPS, VAL_FRACTION = 32, 20, 0.1  # as the default run
SPEC = InputSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear", crop_pct=1.0)
SCHEDULE = partial(cosine, warmup_epochs=0.0, min_lr_fraction=0.0)


@dataclass(frozen=True)
class MadeUp:
    """Features (N, D) float32 and the labels (N,) that a linear head can mostly learn from them, on the device."""

    features: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    num_classes: int

    @property
    def device(self) -> torch.device:
        return self.labels.device


def make_up(*, num_images: int, feature_dim: int, num_classes: int, device: torch.device) -> MadeUp:
    """Draw features, and classes by a linear rule and noise; the same each time."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_images, feature_dim, generator=generator)
    rule = torch.randn(feature_dim, num_classes, generator=generator) / feature_dim**0.5
    noise = 0.5 * torch.randn(num_images, num_classes, generator=generator)
    return MadeUp(features.to(device), (features @ rule + noise).argmax(dim=1).to(device), num_classes)


def make_bank(data: MadeUp, *, seeds: Sequence[int]) -> HeadBank:
    """Heads as `strategy=feature` begins with."""
    bank = HeadBank(
        feature_dim=data.features.shape[1],
        num_classes=data.num_classes,
        seeds=[derive_seed(seed, "head") for seed in seeds],
    )
    return bank.to(data.device)


def make_trainer(
    data: MadeUp, bank: HeadBank, *, seeds: Sequence[int], lrs: Sequence[float], epochs: int, optimizer: type
) -> Trainer:
    """What an experiment on features trains with; val is the first tenth of train."""
    workload = _make_workload(data, bank, seeds=seeds, epochs=epochs)
    return Trainer(
        workload,
        updates=make_updates(
            workload.groups,
            optimizers=[partial(optimizer, lr=lr) for lr in lrs],
            schedulers=[SCHEDULE] * len(lrs),
            fused=True,
        ),
        device=data.device,
        options=TrainingOptions(seed=seeds[0], log_every_steps=LOG_EVERY_STEPS),
    )


def fit_seconds(trainer: Trainer, device: torch.device) -> float:
    """Train and validate to the end; the records are made and thrown away."""
    synchronise(device)
    start = time.perf_counter()
    for _ in trainer.fit():
        pass
    synchronise(device)
    return time.perf_counter() - start


def _make_workload(data: MadeUp, bank: HeadBank, *, seeds: Sequence[int], epochs: int) -> Workload:
    precision = Precision("fp32", data.device.type)
    num_val = max(1, round(VAL_FRACTION * len(data.labels)))
    val = _make_batches(data, num_val, num_members=len(seeds), seeds=None)
    phase = Phase(
        name="feature",
        module=bank,
        trained=names(bank),
        held_in_eval=(),
        epochs=epochs,
        open=lambda: SplitBatches(
            train=_make_batches(data, len(data.labels), num_members=len(seeds), seeds=tuple(seeds)),
            val=val,
            at_the_end=lambda: (val, val),
        ),
        train_precision=precision,
        infer_precision=precision,
    )
    backbone = Backbone(
        nn.Identity(), name="none", feature_dim=data.features.shape[1], input_spec=SPEC, weights_id="none"
    )
    return Workload(
        phases=(phase,),
        groups=param_groups(bank, all_parts(bank), has_member_axis=True),
        deployables=tuple(Model(backbone, bank.head(member)) for member in range(len(seeds))),
        trained=frozenset({"head.weight", "head.bias"}),
    )


def _make_batches(data: MadeUp, num_images: int, *, num_members: int, seeds: tuple[int, ...] | None) -> FeatureBatches:
    return FeatureBatches(
        features=data.features[None, :num_images],
        labels=data.labels[:num_images],
        batch_size=BATCH_SIZE,
        num_members=num_members,
        seeds=seeds,
    )
