"""How each job of a sweep ended, as its files and the ledger tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.sweep.ledger import FAILED, FINISHED, KILLED, PLANNED, PRUNED, Ledger
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.tracking.metrics_log import read_metrics
from tl_experiments.tracking.result import is_finished, read_result

OWN = "RunFailed: "  # what stands before the reason in the result of a run that could not go on


@dataclass(frozen=True)
class Outcome:
    """How one job ended.

    Attributes:
        job: as it was planned.
        folder: of its files, absolute.
        state: PLANNED (not run yet), RUNNING, FINISHED, PRUNED, FAILED or KILLED.
        cause: why it failed or was killed.
        result: `result.json`; empty where there is none.
    """

    job: PlannedJob
    folder: Path
    state: str
    cause: str | None
    result: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in (FINISHED, PRUNED)


def own_cause(result: Mapping[str, Any], *, uid: str) -> str | None:
    """Return why a run failed, as it recorded it itself while others of its process went on."""
    own = result.get("uid") == uid and str(result.get("error", "")).startswith(OWN)
    return result["error"].removeprefix(OWN) if own else None


def identity(result: Mapping[str, Any]) -> dict[str, str]:
    """Return what the ledger keeps of a finished run: what its data, weights, configuration and code are known by."""
    return {key: result[key] for key in ("fingerprint", "git_commit") if key in result}


def read_outcomes(plan: Plan, folder: Path, *, of: Sequence[int] | None = None) -> tuple[Outcome, ...]:
    """Return how jobs stand; a result that is whole says more than a ledger whose writer was killed.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
        of: indices of the jobs that are asked for; None is all of them.
    """
    jobs = plan.jobs if of is None else [plan.jobs[index] for index in of]
    last = Ledger(folder).last(of=of)
    return tuple(_outcome(job, folder / job.folder, last.get(job.index, {})) for job in jobs)


def any_failed(plan: Plan, folder: Path) -> bool:
    """Whether a job failed or was killed; each job asks, so that results of those alone are read of which it is told.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
    """
    last = Ledger(folder).last()
    told = [job.index for job in plan.jobs if last.get(job.index, {}).get("state") in (FAILED, KILLED)]
    return any(outcome.state in (FAILED, KILLED) for outcome in read_outcomes(plan, folder, of=told))


def _outcome(job: PlannedJob, folder: Path, entry: Mapping[str, Any]) -> Outcome:
    result = read_result(folder)
    if result.get("uid") != job.uid:
        result = {}
    finished = is_finished(result, uid=job.uid)
    told = entry.get("state", PLANNED)
    gone = told in (FINISHED, PRUNED)  # its folder was removed, so that it is to be done again
    return Outcome(
        job=job,
        folder=folder,
        state=result["status"] if finished else PLANNED if gone else told,
        cause=None if finished else entry.get("cause"),
        result=result,
    )


def read_epochs(outcome: Outcome) -> list[dict[str, Any]]:
    """Return a run's metrics by epoch, as far as it came; empty where there are none."""
    try:
        return read_metrics(outcome.folder / "metrics.jsonl")
    except (OSError, ValueError):
        return []
