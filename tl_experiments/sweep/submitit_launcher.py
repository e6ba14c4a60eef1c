"""`hydra/launcher=submitit_slurm` and `submitit_local`: the jobs of a sweep through submitit's executors.

A job that is pre-empted or runs out of time is queued again, and goes on from its checkpoint. hydra-submitit-launcher
ends the sweep with the first job that dies, and interrupts pre-empted ones in the middle of whatever they do.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.sweep.causes import JobKilled
from tl_experiments.sweep.cluster import ClusterJob, ClusterLauncher, Ticket
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.process import LOG, as_job_return, failed
from tl_experiments.sweep.submitted import SubmittedJob

COMMON = {  # parameters of all clusters
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    *("mem_gb", "nodes", "name", "stderr_to_stdout"),
}


MOST_TOGETHER = 1000  # jobs of an array: Slurm's MaxArraySize is 1001 unless a cluster raises it


class SubmititLauncher(ClusterLauncher):
    """Submits all jobs of a sweep at once, as arrays where there are arrays."""

    cluster: ClassVar[str]  # as submitit calls it
    poll_seconds = 1.0

    def __init__(self, *, submitit_folder: str, max_num_timeout: int = 10, **parameters: Any) -> None:
        """Keep the settings.

        Args:
            submitit_folder: for what submitit writes; %j is the number of the job.
            max_num_timeout: times that a job which ran out of time is submitted again.
            parameters: of submitit; those of one cluster without their prefix.
        """
        self._folder, self._max_num_timeout = submitit_folder, max_num_timeout
        self._parameters = {
            key if key in COMMON else f"{self.cluster}_{key}": _plain(value)
            for key, value in parameters.items()
            if value is not None
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See that jobs can be submitted.

        Raises:
            ConfigError: submitit is not installed, this is no place to submit from, or a parameter is wrong.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.cluster == "slurm":  # the other makes its folder at once
            self.executor()

    def executor(self) -> Any:
        """Return what submits, with all parameters; raises ConfigError."""
        try:
            import submitit  # noqa: PLC0415 - submitit is optional
        except ImportError as error:
            raise ConfigError(
                f"hydra/launcher: submitit is not installed ({error}); install it by: pip install -e '.[slurm]'"
            ) from error
        try:
            times = {f"{self.cluster}_max_num_timeout": self._max_num_timeout}
            executor = submitit.AutoExecutor(folder=self._folder, cluster=self.cluster, **times)
            executor.update_parameters(**self._parameters)
        except (RuntimeError, ValueError, TypeError, NameError) as error:
            raise ConfigError(f"hydra/launcher=submitit_{self.cluster}: {' '.join(str(error).split())}") from error
        return executor

    def open(self, plan: Plan, folder: Path) -> None:  # noqa: ARG002
        self._submitter, self._packed = self.executor(), self.packed()

    def submit(self, jobs: Sequence[ClusterJob]) -> list[Ticket]:
        """Submit all of them, as few arrays.

        Raises:
            RunFailed: the cluster refuses them; none is left in its queue.
        """
        works = [SubmittedJob(self._packed, job.override, job.number, str(job.folder / LOG), job.told) for job in jobs]
        from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415 - submitit is optional

        tickets: list[Ticket] = []
        try:
            for start in range(0, len(works), MOST_TOGETHER):
                with self._submitter.batch():
                    submitted = [self._submitter.submit(work) for work in works[start : start + MOST_TOGETHER]]
                tickets += [_SubmittedTicket(job) for job in submitted]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            self.cancel(tickets)
            raise RunFailed(f"the jobs were refused: {' '.join(str(error).split())}") from error
        return tickets


class SlurmLauncher(SubmititLauncher):
    """Submits to Slurm, which queues jobs again by itself too when their node dies or is taken without a warning."""

    cluster = "slurm"

    def __init__(self, *, additional_parameters: Mapping[str, Any] | None = None, **parameters: Any) -> None:
        """Keep the settings; options of sbatch that submitit does not know come by `additional_parameters`."""
        own = {} if additional_parameters is None else dict(_plain(additional_parameters))
        requeue = {} if "no-requeue" in own else {"requeue": True}
        super().__init__(additional_parameters=requeue | own, **parameters)

    def cancel(self, tickets: Sequence["_SubmittedTicket"]) -> None:
        """Take out of the queue what waits, and interrupt what runs."""
        ids = [ticket.job.job_id for ticket in tickets]
        for option in ("--state=PENDING", "--signal=INT") if ids else ():
            subprocess.run(["scancel", option, *ids], check=False, timeout=60)


class LocalLauncher(SubmititLauncher):
    """Starts all jobs on this machine."""

    cluster = "local"

    def cancel(self, tickets: Sequence["_SubmittedTicket"]) -> None:
        for ticket in tickets:
            if ticket.job._process is not None:
                ticket.job._process.terminate()  # which passes it on to its task


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


class _SubmittedTicket:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def ended(self) -> bool:
        return bool(self.job.done())

    def result(self) -> JobReturn:
        from submitit.core.utils import UncompletedJobError  # noqa: PLC0415 - submitit is optional

        try:
            return as_job_return(*self.job.results()[0])
        except UncompletedJobError:
            return failed(JobKilled(f"ended without a word, {self.job.state}; see {self.job.paths.stdout}"))
        except Exception as error:
            told = [line for line in str(error).splitlines() if line.strip() and not line.startswith((" ", "-", "You"))]
            return failed(RunFailed(f"{told[-1] if told else type(error).__name__}; see {self.job.paths.stdout}"))
