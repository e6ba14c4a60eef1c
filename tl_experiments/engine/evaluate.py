"""One pass over a split without gradients."""

import time
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import nn

from tl_experiments.data.batches import Batches
from tl_experiments.engine.metrics import Means, Sums, batch_sums, member_losses
from tl_experiments.engine.records import Progress, Stage
from tl_experiments.models.mirrors import mean_logits
from tl_experiments.runtime.precision import Precision
from tl_experiments.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Position:
    """Where in the run the pass takes place, for its records."""

    phase: str
    stage: Stage
    epoch: int
    num_epochs: int


@dataclass(frozen=True)
class Evaluation:
    """The result of a pass.

    Attributes:
        means: per member.
        logits: float32 (K, N, C) on the device, log-probabilities where mirror images were seen too; none, (K, 0, 0),
            where nobody looks at them.
        labels: int64 (K, N) on the device, or (K, 0).
    """

    means: Means
    logits: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)


LOOKED_AT: tuple[Stage, ...] = ("calibration", "test")  # stages whose logits are kept
EvaluationSteps = Generator[Progress, None, Evaluation]


def evaluate(
    module: nn.Module,
    batches: Batches,
    *,
    num_members: int,
    device: torch.device,
    precision: Precision,
    position: Position,
    ranks: Ranks = ALONE,
) -> EvaluationSteps:
    """Yield a record per step; the generator's value is the evaluation. The module is left in eval mode.

    Where several processes share the batches, each sample is seen by one, and the evaluation is of all.
    """
    module.eval()
    sums = Sums(num_members=num_members, device=device)
    logits, labels = [], []
    start, num_seen = time.perf_counter(), 0
    for step, batch in enumerate(batches.epoch(0, ranks=ranks), start=1):
        with torch.inference_mode(), precision.autocast():
            outputs = module(batch.inputs).float()
            if batch.mirrored is not None:
                outputs = _mean_logits(outputs, module(batch.mirrored).float())
            sums.add(batch_sums(batch, outputs, member_losses(outputs, batch.labels)))
        if position.stage in LOOKED_AT:
            own = 0 if batch.stands_in else batch.num_samples
            logits.append(outputs[:, :own])
            labels.append(batch.labels[:, :own])
        num_seen += batch.num_in_step
        yield Progress(
            phase=position.phase,
            stage=position.stage,
            epoch=position.epoch,
            num_epochs=position.num_epochs,
            step=step,
            num_steps=len(batches),
            images_per_second=num_seen / (time.perf_counter() - start),
        )
    sums.gather(ranks)
    return Evaluation(
        means=sums.means(),
        logits=_all(logits, num_seen, ranks) if logits else torch.empty(num_members, 0, 0, device=device),
        labels=_all(labels, num_seen, ranks)
        if labels
        else torch.empty(num_members, 0, dtype=torch.int64, device=device),
    )


def _all(parts: list[torch.Tensor], count: int, ranks: Ranks) -> torch.Tensor:
    """Join parts (K, b, ...) to what all processes have, (K, count, ...)."""
    return ranks.gather(torch.cat(parts, dim=1).transpose(0, 1), count=count).transpose(0, 1)


def _mean_logits(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Join two sets of logits (K, B, C) member by member: these functions round otherwise at the end of a tensor."""
    return torch.stack([mean_logits(one, other) for one, other in zip(logits, others, strict=True)])
