"""One job in a process of its own: started from a server that has only imported, watched, ended, and asked why."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated, die_with_parent
from tl_experiments.sweep.causes import JobKilled, NotStarted, cause_of
from tl_experiments.sweep.told import JobLog

LOG = "job.log"
PRELOADED = "tl_experiments.sweep.preloaded"
GRACE_SECONDS = 20.0  # between asking a job to end and killing it
MASKED = (signal.SIGINT, signal.SIGTERM)
STOPPED = {130: "SIGINT", 143: "SIGTERM"}  # the codes with which a job ends that unwound because of a signal
PLAIN = (int, float, str, tuple, list, type(None))  # what a job may return: sweepers that search want numbers


def fork_server() -> ForkServerContext:
    """Start the server, which imports while its caller goes on, and return the context that makes its children.

    It imports and waits, without connections, CUDA or threads other than those of OpenBLAS and jemalloc, which both
    provide for forks; so its children begin clean.
    """
    context = ForkServerContext()
    context.set_forkserver_preload([PRELOADED])
    resource_tracker.ensure_running()  # it would lift the mask below when it is started
    # A signal that comes before a job can handle it waits until then: its children inherit the mask.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MASKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


class JobProcess:
    """A running job."""

    def __init__(
        self,
        context: ForkServerContext,
        *,
        name: str,
        folder: Path,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the job.

        Args:
            context: of the server.
            name: for people.
            folder: of the job's files, absolute; made when it is missing.
            hydra_context: with the callbacks.
            task_function: what Hydra runs.
            config: of the job, with its node `hydra`.
            environment: variables that the job has beside those with which the server was started.
        """
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.log = JobLog(folder / LOG)
        self._start = time.monotonic()
        self._end_asked: str | None = None
        self._sent: set[int] = set()
        self._returned: JobReturn | None = None
        self._answer, sender = context.Pipe(duplex=False)
        job = cloudpickle.dumps((hydra_context, task_function, config, Singleton.get_state()))
        self._process = context.Process(
            target=_run, args=(job, str(self.log.path), dict(environment or {}), sender), name=name
        )
        self._process.start()
        sender.close()

    @property
    def events(self) -> tuple[int | Connection, ...]:
        """What becomes ready when the process has ended, or has something to say."""
        return (self._process.sentinel,) if self._answer.closed else (self._process.sentinel, self._answer)

    def listen(self) -> None:
        """Take the job's answer if it is there, so that the job can end."""
        if not self._answer.closed and self._answer.poll():
            with contextlib.suppress(EOFError, OSError):  # the job died, before its answer or in the middle of it
                self._returned = as_job_return(*self._answer.recv())
            self._answer.close()

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def new_lines(self) -> list[str]:
        """Return the whole lines that the job has printed since the last call."""
        return self.log.new_lines(ended=self.ended)

    def end_late(self, timeout: float | None) -> None:
        """End a job that runs longer than `timeout` seconds; one that does not obey is killed."""
        if timeout is not None and self.seconds > timeout:
            kills = self.seconds > timeout + GRACE_SECONDS
            self.end(f"ran past sweep.timeout={timeout:g} s", number=signal.SIGKILL if kills else signal.SIGTERM)

    def end(self, cause: str, *, number: int = signal.SIGTERM) -> None:
        """Ask the job to end, or by SIGKILL kill it and all that it started; asking again changes nothing."""
        if number in self._sent or (self._sent and number != signal.SIGKILL):
            return
        self._end_asked = self._end_asked or cause
        pid = self._process.pid or 0
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError):  # a job that has only begun has no group yet
                    os.killpg(pid, number)
            os.kill(pid, number)
            self._sent.add(number)

    def result(self) -> JobReturn:
        """Return what Hydra expects of an ended job; of one that died, a failure that says how."""
        self._process.join()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)  # what it started and left behind
        self.listen()
        returned = self._returned
        if returned is not None and (self._end_asked is None or returned.status == JobStatus.COMPLETED):
            return returned
        code = self._process.exitcode
        killed = self._end_asked is not None or (code or 0) < 0 or code in STOPPED
        cause = self._end_asked or _death(code)
        return failed(JobKilled(cause) if killed else RunFailed(cause))


def failed(error: RunFailed) -> JobReturn:
    """Return what Hydra expects of a job that failed."""
    ended = JobReturn(status=JobStatus.FAILED)
    ended.return_value = error
    return ended


def as_job_return(status: str, answer: Any) -> JobReturn:
    """Turn a job's answer into what Hydra expects: the value that it returned, or why it failed."""
    for kind in (NotStarted, JobKilled):
        if status == kind.__name__:
            return failed(kind(answer))
    if status == JobStatus.FAILED.name:
        return failed(RunFailed(answer))
    completed = JobReturn(status=JobStatus.COMPLETED)
    completed.return_value = answer
    return completed


def _death(exitcode: int | None) -> str:
    """Say how a process ended that could not say it itself."""
    if exitcode in STOPPED:
        return f"received {STOPPED[exitcode]}"
    if exitcode is None or exitcode >= 0:
        return f"exited with code {exitcode}"
    name = signal.Signals(-exitcode).name
    hints = {"SIGKILL": " (the system does this when memory runs out)", "SIGSEGV": " (a crash in compiled code)"}
    return f"killed by {name}{hints.get(name, '')}"


def _run(job: bytes, log: str, environment: Mapping[str, str], answer: Connection) -> None:
    """Be the job: what it prints goes to its log, and signals for the terminal's jobs do not reach it."""
    os.setpgid(0, 0)
    die_with_parent()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # workers that decode are started as in a run on its own
    with open(log, "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASKED)
        ended = run_hydra_job(*cloudpickle.loads(job))
    except KeyboardInterrupt:
        sys.exit(130)
    except Terminated:
        sys.exit(143)
    answer.send(as_plain(ended))
    sys.exit(0 if ended.status == JobStatus.COMPLETED else 1)


def run_hydra_job(
    hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, singletons: dict[Any, Any]
) -> JobReturn:
    """Run a job in this process as Hydra does."""
    setup_globals()
    Singleton.set_state(singletons)
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def as_plain(ended: JobReturn) -> tuple[str, Any]:
    """Return how a job ended as plain values: an error of the user's own code need not exist in another process."""
    value = ended._return_value
    if isinstance(value, NotStarted | JobKilled):
        return type(value).__name__, str(value)
    if ended.status == JobStatus.COMPLETED:
        return ended.status.name, value if isinstance(value, PLAIN) else None
    return ended.status.name, cause_of(value)
