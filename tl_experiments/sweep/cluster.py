"""What launchers of clusters share: all jobs are handed over at once, their logs are followed, their ends are told.

The nodes see the sweep's folder, in which the plan lies and jobs write; nothing else comes back from them.
"""

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.causes import NOT_STARTED, JobKilled, NotStarted
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.sweep.plan_text import spans
from tl_experiments.sweep.planned_configs import GROUP_KEY
from tl_experiments.sweep.process import LOG, failed
from tl_experiments.sweep.told import JobLog, ToldLauncher

GRACE_SECONDS = 30.0  # for jobs that were asked to end, beyond which they are left to the cluster


class Ticket(Protocol):
    """A job that a cluster was given."""

    def ended(self) -> bool:
        """Whether the cluster is done with it."""
        ...

    def result(self) -> JobReturn:
        """Return how it ended, once it has."""
        ...


@dataclass(frozen=True)
class ClusterJob:
    """What one process of a node is to do.

    Attributes:
        position: among those of a launch.
        number: as Hydra counts them.
        host: the job of the plan in whose folder the log is written.
        folder: of that job, absolute.
        override: that names the group.
        told: what it runs, for people.
    """

    position: int
    number: int
    host: PlannedJob
    folder: Path
    override: str
    told: str


@dataclass
class _Running:
    """A job that was handed over, and what it has printed."""

    job: ClusterJob
    ticket: Ticket
    log: JobLog


class ClusterLauncher(ToldLauncher):
    """Hands jobs to a cluster, which decides when they run."""

    poll_seconds = 0.3

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what every job needs; what keeps a cluster from being used is told here, before anything is written."""
        self._hydra_context, self._task_function, self._config = hydra_context, task_function, config

    def packed(self) -> bytes:
        """Return what every job of the sweep needs, for `load_job` on a node."""
        return cloudpickle.dumps((self._hydra_context, self._task_function, self._config, Singleton.get_state()))

    @abstractmethod
    def open(self, plan: Plan, folder: Path) -> None:
        """Prepare for the jobs of a launch."""

    def accepts(self, job: ClusterJob) -> bool:  # noqa: ARG002
        """Whether a job may be handed over now; one that may not is asked for again."""
        return True

    @abstractmethod
    def submit(self, jobs: Sequence[ClusterJob]) -> list[Ticket]:
        """Hand jobs over."""

    @abstractmethod
    def cancel(self, tickets: Sequence[Any]) -> None:
        """Ask jobs to end after their step, or not to begin."""

    def check(self) -> None:
        """Look after the cluster while jobs are waited for; raises RunFailed where they would wait forever."""

    def close(self, job: ClusterJob) -> None:
        """Take note of the end of a job."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return how each ended, in the same order.

        Raises:
            KeyboardInterrupt, Terminated: the sweep was stopped.
            RunFailed: the cluster cannot run what is left.
        """
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        from tl_experiments.tracking.console import Console  # noqa: PLC0415 - Hydra imports plugins even for --help

        self._console = Console()
        folder = Path(self._config.hydra.sweep.dir)
        plan = Plan.load(folder)
        waiting = [
            _job(plan, folder, override=override, position=position, number=initial_job_idx + position)
            for position, [override] in enumerate(job_overrides)
        ]
        self.open(plan, folder)
        advance = self._console.work(f"{len(waiting)} process{'' if len(waiting) == 1 else 'es'} to run on the cluster")
        running: dict[int, _Running] = {}
        ended: dict[int, JobReturn] = {}
        try:
            while waiting or running:
                waiting = self._hand_over(waiting, running)
                self._watch(running, ended)
                advance(len(ended), len(job_overrides))
        except (KeyboardInterrupt, Terminated) as error:
            self._stop(running, ended, cause=str(error) or "interrupted by Ctrl-C")
            raise
        finally:
            with suppress(Exception):  # Ctrl-C a second time, or no cluster any more
                self.cancel([one.ticket for one in running.values()])
            advance(len(job_overrides), len(job_overrides))
        return [ended[position] for position in range(len(job_overrides))]

    def _hand_over(self, waiting: list[ClusterJob], running: dict[int, _Running]) -> list[ClusterJob]:
        """Return the jobs that have to wait longer."""
        accepted, left = [], []
        for job in waiting:
            (accepted if self.accepts(job) else left).append(job)
        logs = [JobLog(job.folder / LOG) for job in accepted]
        tickets = self.submit(accepted) if accepted else []
        for job, ticket, log in zip(accepted, tickets, logs, strict=True):
            running[job.position] = _Running(job, ticket, log)
        return left

    def _watch(self, running: dict[int, _Running], ended: dict[int, JobReturn]) -> None:
        """Wait a moment, show what came, and take note of what has ended."""
        time.sleep(self.poll_seconds)
        self.check()
        for position, one in list(running.items()):
            is_over = one.ticket.ended()
            self._show(one, ended=is_over)
            if is_over:
                ended[position] = self._finish(running.pop(position), one.ticket.result())

    def _show(self, one: _Running, *, ended: bool = False) -> None:
        for line in one.log.new_lines(ended=ended):
            self._console.notice(f"[{one.job.host.folder}] {line}")

    def _finish(self, one: _Running, returned: JobReturn) -> JobReturn:
        self.close(one.job)
        if self.on_end is not None:
            self.on_end(one.job.position, returned)
        return returned

    def _stop(self, running: dict[int, _Running], ended: dict[int, JobReturn], *, cause: str) -> None:
        """Let every job end after its step, as far as the cluster is asked to."""
        self._console.notice(f"{cause}: ending {len(running)} jobs after their step; once more to wait no longer")
        self.cancel([one.ticket for one in running.values()])
        deadline = time.monotonic() + GRACE_SECONDS
        while running and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
            for position, one in list(running.items()):
                if one.ticket.ended():
                    self._show(one, ended=True)
                    begun = one.log.has_grown
                    returned = one.ticket.result()
                    if returned.status == JobStatus.FAILED:
                        returned = failed(JobKilled(cause) if begun else NotStarted(NOT_STARTED))
                    ended[position] = self._finish(running.pop(position), returned)


def _job(plan: Plan, folder: Path, *, override: str, position: int, number: int) -> ClusterJob:
    indices = plan.groups[int(override.removeprefix(f"{GROUP_KEY}="))]
    host = plan.jobs[indices[0]]
    return ClusterJob(
        position=position,
        number=number,
        host=host,
        folder=folder / host.folder,
        override=override,
        told=" ".join(host.overrides) if len(indices) == 1 else f"jobs {spans(indices)} together",
    )


def load_job(
    packed: bytes, *, override: str, number: int
) -> tuple[HydraContext, TaskFunction, DictConfig, dict[Any, Any]]:
    """Read a job from the plan in the sweep's folder.

    Args:
        packed: of a launcher.
        override: that names the group.
        number: as Hydra counts the job.

    Returns:
        What `run_hydra_job` takes: context, function, configuration of the job with its node `hydra`, singletons.

    Raises:
        ConfigError: this node does not see the sweep's folder.
    """
    hydra_context, task_function, master, singletons = cloudpickle.loads(packed)
    setup_globals()
    Singleton.set_state(singletons)
    config = hydra_context.config_loader.load_sweep_config(master, [override])
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return hydra_context, task_function, config, singletons
