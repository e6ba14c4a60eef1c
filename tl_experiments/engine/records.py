"""What the engine reports: immutable values, one per step and one per epoch; metrics lead with an axis of members."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from tl_experiments.engine.scores import Scores

Stage = Literal["train", "val", "calibration", "test"]  # calibration is val again, under the best weights


@dataclass(frozen=True)
class Progress:
    """One step is done; `loss` and `acc` are None on the steps at which none has arrived."""

    phase: str
    stage: Stage
    epoch: int  # from 1
    num_epochs: int
    step: int  # steps done in this stage of this epoch, from 1
    num_steps: int
    images_per_second: float
    loss: tuple[float, ...] | None = None  # running mean over the epoch, one value per member
    acc: tuple[float, ...] | None = None


@dataclass(frozen=True)
class EpochRecord:
    """One epoch is done and validated; every tuple has one value per member."""

    phase: str
    epoch: int  # from 1, counted over all phases
    num_epochs: int
    train_loss: tuple[float, ...]
    train_acc: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_acc: tuple[float, ...]
    lr: tuple[float, ...]  # base rate of the epoch's last update; none where weights were solved for
    improved: tuple[bool, ...]  # the best so far: highest val/acc, of equal ones the lowest val/loss
    images_per_second: float  # training only
    seconds: float  # training and validation
    candidate: Mapping[str, float] = field(default_factory=dict)  # what was tried, where weights were solved for
    schedule_epoch: int | None = None  # from 1, under the last schedule; None before it, or solved
    num_skipped: tuple[int, ...] = ()  # steps that changed no weight, because a loss or gradient was not finite

    def metrics(self, member: int) -> dict[str, float]:
        """Return the epoch's metrics of one member under the names that trackers show."""
        skipped = sum(self.num_skipped[member : member + 1])
        return {
            "train/loss": self.train_loss[member],
            "train/acc": self.train_acc[member],
            "val/loss": self.val_loss[member],
            "val/acc": self.val_acc[member],
            **({"lr": self.lr[member]} if self.lr else {}),
            **{f"strategy/{name}": value for name, value in self.candidate.items()},
            "perf/images_per_second": self.images_per_second,
            "perf/epoch_seconds": self.seconds,
            **({"train/skipped_steps": skipped} if skipped else {}),
        }


@dataclass(frozen=True)
class FinalRecord:
    """The test split has been seen, once, by each member's best weights."""

    loss: tuple[float, ...]
    acc: tuple[float, ...]
    best_epoch: tuple[int, ...]
    best_val_acc: tuple[float, ...]
    scores: tuple[Scores, ...]
    logits: torch.Tensor = field(repr=False)  # (K, N, C) float32 on the CPU, in the order of the split
    labels: torch.Tensor = field(repr=False)  # (N,) int64

    def metrics(self, member: int) -> dict[str, float]:
        """Return the summaries of one member under the names that trackers show."""
        return {
            "val/acc_best": self.best_val_acc[member],
            "val/epoch_best": self.best_epoch[member],
            "test/loss": self.loss[member],
            "test/acc": self.acc[member],
            **self.scores[member].metrics(),
        }


@dataclass(frozen=True)
class Diverged:
    """The loss of one of several members is no longer finite: it is left alone from here on, and the others go on."""

    member: int
    reason: str


@dataclass(frozen=True)
class Stopped:
    """A member has not become better for so long that its training ends: it is left alone from here on."""

    member: int
    epoch: int  # its last
    reason: str


@dataclass(frozen=True)
class Halved:
    """A batch did not fit into memory: from here on it is computed in parts, whose gradients add up to its own."""

    micro_batch: int  # samples at a time


Record = Progress | EpochRecord | Diverged | Stopped | Halved | FinalRecord
