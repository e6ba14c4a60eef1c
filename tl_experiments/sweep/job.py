"""What one launched process runs: the members of its group, read from the sweep's folder, or a run on its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.member import Member, current_member
from tl_experiments.config.schema import OnError
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.importing import importing
from tl_experiments.runtime.run_lock import alone_in
from tl_experiments.runtime.signals import Preempted, Terminated
from tl_experiments.sweep.causes import NOT_STARTED, NotStarted, cause_of
from tl_experiments.sweep.ledger import FAILED, FINISHED, KILLED, PLANNED, RUNNING, Ledger
from tl_experiments.sweep.outcome import any_failed, identity, own_cause, read_outcomes
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.planned_configs import GROUP_KEY
from tl_experiments.sweep.pre_emption import is_taken_by_slurm
from tl_experiments.sweep.search.pruning import pruning
from tl_experiments.sweep.share_out import share_out
from tl_experiments.tracking.result import finished_line, is_finished, read_result

if TYPE_CHECKING:
    from tl_experiments.tracking.run_log import RunResult

GRACE_SECONDS = 10
LOCK_SECONDS = 30  # workers that decode outlive their killed parent for some seconds


@dataclass(frozen=True)
class Job:
    """The members that this process runs, and the ledger that is told, if they belong to a planned sweep.

    In a search, `prunes` says after an epoch and its val/acc whether the job stops there.
    """

    members: tuple[Member, ...]
    indices: tuple[int, ...] = ()
    ledger: Ledger | None = None
    prunes: Callable[[int, float], bool] | None = None

    def run(self) -> float:
        """Train the members, each alone in its folder, and return the best val/acc of the first."""
        with importing():  # here, since a config error must not wait for torch
            from tl_experiments.experiment import run_experiments  # noqa: PLC0415
            from tl_experiments.sweep.dead import close_what_died  # noqa: PLC0415

        first = self.members[0]
        if self.ledger is None:  # a sweep has done it for its jobs
            close_what_died(first.folder, tracking_uri=first.config["tracking"].get("uri"))
        with self._recorded():
            if self.ledger is None and is_finished(read_result(first.folder), uid=first.uid):
                self._tell(finished_line(first.folder))  # by another process, which was waited for
                return float(read_result(first.folder)["val/acc_best"])
            for line in first.changed:
                self._tell(f"note: goes on with {line}")
            share_out(self.members)
            results = run_experiments(self.members, prunes=self.prunes)
        self._show(results)
        return results[0].val_acc_best

    def _tell(self, line: str) -> None:
        from tl_experiments.tracking.console import Console  # noqa: PLC0415 - not before a run has begun

        Console().notice(line)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Tell the ledger that the jobs begin and how they end; no other process runs them meanwhile."""
        with ExitStack() as locks:
            for member in self.members:
                locks.enter_context(
                    alone_in(member.folder, seconds=GRACE_SECONDS if self.ledger is None else LOCK_SECONDS)
                )
            if self.ledger is None:
                yield
                return
            for member in self.members:
                _remove_old_result(member)
            self.ledger.append(*self._entries(RUNNING))
            try:
                yield
            except BaseException as error:
                self.ledger.append(*self._ends(_state(error), cause=cause_of(error)))
                raise
            self.ledger.append(*self._entries(FINISHED))

    def _show(self, results: "Sequence[RunResult]") -> None:
        """Print the results of a run on its own; a sweep tells of all its runs at once."""
        if self.ledger is None:
            from tl_experiments.tracking.console import Console  # noqa: PLC0415 - not before a run has begun

            Console().end(results)

    def _ends(self, state: str, *, cause: str) -> Iterator[dict[str, Any]]:
        """Yield the lines for members that an error ended, but for those that had finished, or failed alone."""
        for index, member in zip(self.indices, self.members, strict=True):
            result = read_result(member.folder)
            if is_finished(result, uid=member.uid):
                yield {"job": index, "state": result["status"], **identity(result)}
            else:
                own = own_cause(result, uid=member.uid)
                yield {"job": index, "state": FAILED if own else state, "cause": own or cause}

    def _entries(self, state: str, **facts: str) -> Iterator[dict[str, Any]]:
        """Yield a line of the ledger for each member; what is known of its data and weights comes from its result."""
        for index, member in zip(self.indices, self.members, strict=True):
            result = read_result(member.folder) if state == FINISHED else {}
            yield {"job": index, "state": result.get("status", state), **facts, **identity(result)}


def _state(error: BaseException) -> str:
    """What the ledger says of a job that an error ended; one that was pre-empted is to be run again."""
    if isinstance(error, Preempted) or (isinstance(error, Terminated) and is_taken_by_slurm()):
        return PLANNED
    return KILLED if isinstance(error, KeyboardInterrupt | Terminated) else FAILED


def _remove_old_result(member: Member) -> None:
    """What an attempt that is over has left says nothing of this one; raises RunFailed where it is the end already."""
    if is_finished(read_result(member.folder), uid=member.uid):
        raise RunFailed(f"{member.name}: an earlier process of this job has finished it meanwhile")
    (member.folder / "result.json").unlink(missing_ok=True)


def current_job(config: DictConfig) -> Job:
    """Return what the running Hydra job is to do.

    Args:
        config: as Hydra composed it; with `sweep.group`, everything else is read from the plan.

    Raises:
        ConfigError: the configuration is wrong.
        NotStarted: another job failed, and `sweep.on_error` is stop; or a cluster runs again what has finished.
    """
    group = OmegaConf.select(config, GROUP_KEY)
    if group is None:
        return Job(members=(current_member(config),))
    folder = Path(HydraConfig.get().sweep.dir)
    plan = Plan.load(folder)
    if config.sweep.on_error is OnError.stop and any_failed(plan, folder):
        raise NotStarted(NOT_STARTED)
    own = read_outcomes(plan, folder, of=plan.groups[group])
    left = [outcome.job.index for outcome in own if not outcome.over]
    if not left:
        raise NotStarted(f"{GROUP_KEY}={group}: all its jobs have finished")
    members = tuple(plan.member(plan.jobs[index], folder=folder) for index in left)
    return Job(members=members, indices=tuple(left), ledger=Ledger(folder), prunes=pruning(plan, folder, index=left[0]))
