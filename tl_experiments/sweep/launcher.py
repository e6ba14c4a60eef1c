"""Hydra's launcher for one machine: every job in a process of its own, some at a time; none takes others with it."""

import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from tl_experiments.config.schema import OnError
from tl_experiments.runtime.signals import Terminated, shielded
from tl_experiments.sweep.causes import NOT_STARTED, NotStarted, cause_of
from tl_experiments.sweep.process import GRACE_SECONDS, JobProcess, failed, fork_server
from tl_experiments.sweep.told import ToldLauncher

POLL_SECONDS = 0.2


class IsolatedLauncher(ToldLauncher):
    """Starts jobs from a server of forks; shows what they print, each line after the number of its job."""

    def __init__(self, *, n_jobs: int, timeout: float | None, on_error: OnError) -> None:
        """Keep the settings.

        Args:
            n_jobs: at the same time, 1 or more.
            timeout: seconds that one job may take; None is any time.
            on_error: continue, or stop, which starts no further job after one that failed.
        """
        self._n_jobs = n_jobs
        self._timeout = timeout
        self._stops = on_error is OnError.stop

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Start the server, so that it imports while the plan is made."""
        self._context = fork_server()
        self._hydra_context, self._task_function, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return how each ended, in the same order.

        Raises:
            KeyboardInterrupt, Terminated: the sweep was stopped; no job runs any more.
        """
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        from tl_experiments.tracking.console import Console  # noqa: PLC0415 - Hydra imports plugins even for --help

        self._console = Console()
        count = f"{len(job_overrides)} process{'' if len(job_overrides) == 1 else 'es'}"
        self._advance = self._console.work(f"{count} to run, {self._n_jobs} at a time")
        waiting = list(enumerate(job_overrides))
        running: dict[int, JobProcess] = {}
        ended: dict[int, JobReturn] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._n_jobs:
                    index, overrides = waiting.pop(0)
                    with shielded():  # a job that was asked for is known before anything ends the sweep
                        running[index] = self._start(overrides, initial_job_idx + index)
                self._watch(running)
                self._advance(len(ended), len(job_overrides))
                for index in [index for index, process in running.items() if process.ended]:
                    ended[index] = self._finish(running.pop(index), index)
                    if self._stops and ended[index].status == JobStatus.FAILED:
                        ended |= {left: failed(NotStarted(NOT_STARTED)) for left, _ in waiting}
                        waiting = []
        except (KeyboardInterrupt, Terminated) as error:
            self._stop(running, cause=str(error) or "interrupted by Ctrl-C")
            raise
        finally:
            for process in running.values():  # Ctrl-C a second time, or a defect here
                process.end("the launcher ended", number=signal.SIGKILL)
                process.result()
            self._advance(len(job_overrides), len(job_overrides))
        return [ended[index] for index in range(len(job_overrides))]

    def _start(self, overrides: Sequence[str], number: int) -> JobProcess:
        config = self._hydra_context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        subdir = str(config.hydra.sweep.subdir)
        told = " ".join(filter_overrides(OmegaConf.to_container(config.hydra.overrides.task)))  # type: ignore[arg-type]
        self._console.notice(f"[{subdir}] starts: {told or 'the defaults'}")
        return JobProcess(
            self._context,
            name=subdir,
            folder=Path(config.hydra.sweep.dir).absolute() / subdir,
            hydra_context=self._hydra_context,
            task_function=self._task_function,
            config=config,
        )

    def _watch(self, running: Mapping[int, JobProcess]) -> None:
        """Wait a moment, or until a job ends; show what came, and end what takes too long."""
        wait([event for process in running.values() for event in process.events], timeout=POLL_SECONDS)
        for process in running.values():
            process.listen()
            self._show(process)
            process.end_late(self._timeout)

    def _show(self, process: JobProcess) -> None:
        for line in process.new_lines():
            self._console.notice(f"[{process.name}] {line}")

    def _finish(self, process: JobProcess, index: int) -> JobReturn:
        ended = process.result()
        self._show(process)
        if self.on_end is not None:
            self.on_end(index, ended)
        elif ended.status == JobStatus.FAILED:
            self._console.notice(f"[{process.name}] failed: {cause_of(ended._return_value)}; {process.log.path}")
        return ended

    def _stop(self, running: dict[int, JobProcess], *, cause: str) -> None:
        """Let every job end after its step; whoever presses Ctrl-C again does not wait for that."""
        self._console.notice(f"{cause}: ending {len(running)} jobs after their step; once more to end them at once")
        for process in running.values():
            process.end(cause, number=signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(not process.ended for process in running.values()) and time.monotonic() < deadline:
            self._watch(running)
        for index in list(running):
            running[index].end(cause, number=signal.SIGKILL)
            self._finish(running.pop(index), index)
