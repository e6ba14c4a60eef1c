"""Truth after the fact: what a job could not record itself because it died, is recorded for it."""

from contextlib import suppress
from pathlib import Path

from tl_experiments import build
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.ledger import FAILED, FINISHED, KILLED, Ledger
from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.parent import read_parent
from tl_experiments.sweep.plan import Plan


def settle_finished(plan: Plan, folder: Path, outcome: Outcome) -> None:
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
