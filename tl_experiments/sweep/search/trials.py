"""The jobs of a search as its sampler and pruner see them: read from the sweep's own files, which are the truth."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.sweep.ledger import FINISHED, PRUNED
from tl_experiments.sweep.outcome import Outcome, read_epochs, read_outcomes
from tl_experiments.sweep.plan import Plan


@dataclass(frozen=True)
class Trial:
    """One job.

    Attributes:
        index: in the plan.
        values: searched key → value as Hydra takes it, of those that the job accepts.
        state: FINISHED, PRUNED, RUNNING while it is not known how it ends, or anything else for one that failed.
        score: best val/acc of one that finished.
        val_acc: of its epochs under its last schedule, from the first; NaN where it was not finite.
    """

    index: int
    values: Mapping[str, str]
    state: str
    score: float | None = None
    val_acc: tuple[float, ...] = ()


def read_trials(plan: Plan, folder: Path, *, number: int) -> list[Trial]:
    """Return the first `number` jobs of the plan, however they ended."""
    return [_trial(outcome) for outcome in read_outcomes(plan, folder, of=range(min(number, len(plan.jobs))))]


def read_val_acc(outcome: Outcome) -> tuple[float, ...]:
    """Return val/acc of every epoch that a job has trained under its last schedule, from the first.

    Those before, such as LP-FT's probe, and candidates that are solved for have no like in other strategies.
    """
    rows = (row for row in read_epochs(outcome) if row.get("schedule_epoch") is not None)
    return tuple(math.nan if row.get("val/acc") is None else row["val/acc"] for row in rows)


def _trial(outcome: Outcome) -> Trial:
    known = outcome.state in (FINISHED, PRUNED)
    return Trial(
        index=outcome.job.index,
        values=outcome.job.values,
        state=outcome.state,
        score=outcome.result.get("val/acc_best") if outcome.state == FINISHED else None,
        val_acc=read_val_acc(outcome) if known else (),
    )
