"""Truth after the fact: what a job could not record itself because it died, is recorded for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from tl_experiments import build
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.run_lock import alone_in
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.causes import JobKilled, NotStarted, cause_of
from tl_experiments.sweep.ledger import FAILED, KILLED, PLANNED, RUNNING, Ledger
from tl_experiments.sweep.outcome import Outcome, identity, own_cause, read_outcomes
from tl_experiments.sweep.plan import Plan
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.tracker import Tracker

GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Settler:
    """Settles the jobs of one sweep. The tracking store comes first and the ledger last, so that what fails half-way,
    because the store is away or this process is killed, is tried again when the sweep goes on.

    Attributes:
        plan: of the sweep.
        folder: of the sweep, absolute.
        console: told of what could not be settled.
    """

    plan: Plan
    folder: Path
    console: Console

    def settle_group(self, group: int, ended: JobReturn) -> None:
        """Record the end of the jobs of one launched process, as far as they did not do it.

        Args:
            group: number of the process in the plan.
            ended: what the launcher says of it.
        """
        error = ended._return_value
        if ended.status == JobStatus.COMPLETED or isinstance(error, NotStarted):
            return
        killed, cause = isinstance(error, JobKilled), cause_of(error)
        for outcome in read_outcomes(self.plan, self.folder, of=self.plan.groups[group]):
            if outcome.over:
                continue
            if self._failed_alone(outcome):
                continue
            if outcome.state in (PLANNED, RUNNING) or not outcome.result:
                self.settle_dead(outcome, cause=cause, killed=killed)
            elif killed:  # the job has recorded that a signal came; why it came is known here
                self._ledger.append({"job": outcome.job.index, "state": outcome.state, "cause": cause})

    def settle_rest(self, cause: str) -> None:
        """Whatever killed a job or an earlier sweep: leave no run open, and no finished one unrecorded."""
        last = self._ledger.last()
        for outcome in read_outcomes(self.plan, self.folder):
            if outcome.over and last.get(outcome.job.index, {}).get("state") != outcome.state:
                self._settle_finished(outcome)
            elif outcome.state == RUNNING and not self._failed_alone(outcome):
                self.settle_dead(outcome, cause=cause, killed=True)

    def _failed_alone(self, outcome: Outcome) -> bool:
        """Whether a job had recorded its failure while others of its process went on; the ledger is told then."""
        if outcome.state == PLANNED:  # what lies there is of an earlier attempt
            return False
        cause = own_cause(outcome.result, uid=outcome.job.uid)
        if cause is not None and outcome.state != FAILED:
            self._ledger.append({"job": outcome.job.index, "state": FAILED, "cause": cause})
        return cause is not None

    def settle_dead(self, outcome: Outcome, *, cause: str, killed: bool) -> None:
        """Record how a job ended that could not tell it, in its tracked run, which is made if need be, and the ledger.

        Args:
            outcome: of the job, as it stands.
            cause: why it ended.
            killed: from outside, so that nothing is said against the job.
        """
        with self._alone(outcome) as is_alone:
            if not is_alone:
                self.console.notice(f"note: job {outcome.job.name} is still running; {cause}")
            elif is_finished(result := read_result(outcome.folder), uid=outcome.job.uid):  # while it was waited for
                self._close_finished(replace(outcome, result=result))
            else:
                error = Terminated(cause) if killed else RunFailed(cause)
                state = KILLED if killed else FAILED
                with self._recording(outcome, state=state, cause=cause), suppress(type(error)), self._tracker(outcome):
                    raise error

    def _settle_finished(self, outcome: Outcome) -> None:
        with self._alone(outcome) as is_alone:
            if is_alone:  # else it says so itself
                self._close_finished(outcome)

    @contextmanager
    def _alone(self, outcome: Outcome) -> Iterator[bool]:
        """Keep other processes from a job's folder; yields whether none has it."""
        with ExitStack() as held:
            try:
                held.enter_context(alone_in(outcome.folder, seconds=GRACE_SECONDS))
                is_alone = True
            except RunFailed:
                is_alone = False
            yield is_alone

    def _close_finished(self, outcome: Outcome) -> None:
        """Close the tracked run of a job whose result is whole, but which was killed before it could say so."""
        state = outcome.result["status"]
        with self._recording(outcome, state=state, **identity(outcome.result)), self._tracker(outcome) as tracker:
            tracker.log_file(outcome.folder / "result.json")

    @contextmanager
    def _recording(self, outcome: Outcome, *, state: str, **facts: str) -> Iterator[None]:
        """Write the ledger's line when the block is done; a store that cannot be reached ends nothing else."""
        try:
            yield
        except Exception as error:
            self.console.notice(f"note: the tracked run of job {outcome.job.name} stays open: {cause_of(error)}")
        else:
            self._ledger.append({"job": outcome.job.index, "state": state, **facts})

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self.folder)

    def _tracker(self, outcome: Outcome) -> Tracker:
        return build.build_tracker(self.plan.member(outcome.job, folder=self.folder))
