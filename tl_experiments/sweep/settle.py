"""Truth after the fact: what a job could not record itself because it died, is recorded for it."""

from contextlib import suppress
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from tl_experiments import build
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.launcher import told
from tl_experiments.sweep.ledger import FAILED, FINISHED, KILLED, PLANNED, RUNNING, Ledger
from tl_experiments.sweep.outcome import NotStarted, Outcome, read_outcomes
from tl_experiments.sweep.parent import read_parent
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.process import JobDied


def settle_group(plan: Plan, folder: Path, group: int, ended: JobReturn) -> None:
    """Record the end of the jobs of one launched process, as far as they did not do it.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
        group: number of the process in the plan.
        ended: what the launcher says of it.
    """
    error = ended._return_value
    if ended.status == JobStatus.COMPLETED or isinstance(error, NotStarted):
        return
    killed = isinstance(error, JobDied) and error.killed
    outcomes = read_outcomes(plan, folder)
    for outcome in (outcomes[index] for index in plan.groups[group]):
        if outcome.finished:
            continue
        if outcome.state in (PLANNED, RUNNING) or not outcome.result:
            settle_dead(plan, folder, outcome, cause=told(ended), killed=killed)
        elif killed:  # the job has recorded that a signal came; why it came is known here
            Ledger(folder).append({"job": outcome.job.index, "state": outcome.state, "cause": told(ended)})


def settle_rest(plan: Plan, folder: Path) -> None:
    """Whatever killed a job or an earlier sweep: leave no run open, and no finished one unrecorded."""
    last = Ledger(folder).last()
    for outcome in read_outcomes(plan, folder):
        if outcome.finished and last.get(outcome.job.index, {}).get("state") != FINISHED:
            _settle_finished(plan, folder, outcome)
        elif outcome.state == RUNNING:
            settle_dead(plan, folder, outcome, cause=outcome.cause or "the sweep was ended", killed=True)


def _settle_finished(plan: Plan, folder: Path, outcome: Outcome) -> None:
    """Close the tracked run of a job whose result is whole, but which was killed before it could say so."""
    member = plan.member(outcome.job, folder=folder, parent_run_id=read_parent(folder))
    with build.build_tracker(member) as tracker:
        tracker.log_file(outcome.folder / "result.json")
    entry = {"job": outcome.job.index, "state": FINISHED, "fingerprint": outcome.result.get("fingerprint")}
    Ledger(folder).append(entry)


def settle_dead(plan: Plan, folder: Path, outcome: Outcome, *, cause: str, killed: bool) -> None:
    """Record how a job ended that could not tell it, in the ledger and in its tracked run, which is made if need be.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
        outcome: of the job, as it stands.
        cause: why it ended.
        killed: from outside, so that nothing is said against the job.
    """
    Ledger(folder).append({"job": outcome.job.index, "state": KILLED if killed else FAILED, "cause": cause})
    member = plan.member(outcome.job, folder=folder, parent_run_id=read_parent(folder))
    error = Terminated(cause) if killed else RunFailed(cause)
    with suppress(type(error)), build.build_tracker(member):
        raise error
