"""`hydra/launcher=ray`: the jobs of a sweep as tasks of a Ray cluster; those that share features go to one node first.

A node that dies costs its jobs, which Ray gives to another one, where they go on from their checkpoints; the lock of a
run's folder keeps them from running twice. hydra-ray-launcher ends the sweep with the first such error, knows nothing
of where features are, and runs jobs in the processes of Ray itself.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.sweep.causes import JobKilled
from tl_experiments.sweep.cluster import ClusterJob, ClusterLauncher, Ticket
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.process import as_job_return, failed
from tl_experiments.sweep.ray_cluster import RayCluster
from tl_experiments.sweep.ray_node import STOPPED, run_on_node


class RayLauncher(ClusterLauncher):
    """Gives every job to Ray as a task, with the resources that it asks for."""

    def __init__(
        self,
        *,
        num_cpus: float,
        num_gpus: float | None,
        memory_gb: float | None,
        max_retries: int,
        autoscales: bool,
        timeout: float | None,
        runtime_env: Mapping[str, Any],
    ) -> None:
        """Keep the settings.

        Args:
            num_cpus: of one process.
            num_gpus: of one process, less than 1 shares a GPU; None is 1 where the cluster has GPUs.
            memory_gb: of one process; None asks for none.
            max_retries: times that a job is begun again because its node died.
            autoscales: whether the cluster adds nodes when they are asked for.
            timeout: seconds that one process may take; None is any time.
            runtime_env: of Ray, such as {env_vars: {...}}.
        """
        self._num_cpus, self._num_gpus, self._memory_gb = num_cpus, num_gpus, memory_gb
        self._max_retries, self._autoscales, self._timeout = max_retries, autoscales, timeout
        self._runtime_env = OmegaConf.to_container(runtime_env) if OmegaConf.is_config(runtime_env) else runtime_env

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Connect.

        Raises:
            ConfigError: there is no node that is large enough.
            SettingError: Ray is not installed, or does not answer.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._cluster = RayCluster.connect(runtime_env=dict(self._runtime_env))  # type: ignore[arg-type]
        gpus = float(self._cluster.has_gpus) if self._num_gpus is None else self._num_gpus
        self._needs = {"CPU": self._num_cpus, "GPU": gpus, "memory": (self._memory_gb or 0) * 1e9}
        if not self._autoscales and (problem := self._cluster.lacks(self._needs)):
            raise ConfigError(f"{problem}; ask for less, or say hydra.launcher.autoscales=true where nodes are added")

    def open(self, plan: Plan, folder: Path) -> None:
        from tl_experiments.sweep.ray_places import FeaturePlaces  # noqa: PLC0415 - Hydra imports plugins even for --help

        self._stopped = folder / STOPPED
        self._stopped.unlink(missing_ok=True)
        self._packed = self._cluster.put(self.packed())
        self._places = FeaturePlaces.of(plan, folder, alive=self._cluster.alive())
        self._task = self._cluster.task(
            run_on_node,
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            memory=self._needs["memory"] or None,
            max_retries=self._max_retries,
            max_calls=0,  # GPUs are used by the job's own process, so that Ray's need not end with it
        )

    def accepts(self, job: ClusterJob) -> bool:
        return self._places.accepts(job.host.index, alive=self._cluster.alive())

    def submit(self, jobs: Sequence[ClusterJob]) -> list[Ticket]:
        return [self._submit(job) for job in jobs]

    def _submit(self, job: ClusterJob) -> Ticket:
        given = {"override": job.override, "number": job.number, "told": job.told}
        given |= {"timeout": self._timeout, "cwd": str(Path.cwd())}
        node = self._places.node(job.host.index)
        started = self._cluster.start(self._task, self._packed, given, name=job.host.name, node=node)
        return _RayTicket(self._cluster, started)

    def cancel(self, tickets: Sequence["_RayTicket"]) -> None:
        if tickets:
            with suppress(OSError):  # a full disk keeps no job running
                self._stopped.touch()
        for ticket in reversed(tickets):  # those that wait come last, and would begin where one that runs has ended
            self._cluster.cancel(ticket.reference)

    def check(self) -> None:
        """See that what waits can run at all: nodes may have died."""
        if not self._autoscales and (problem := self._cluster.lacks(self._needs, patience_seconds=60)):
            raise RunFailed(f"{problem}, since nodes have left it")

    def close(self, job: ClusterJob) -> None:
        self._places.ended(job.host.index)


class _RayTicket:
    """A task of Ray."""

    def __init__(self, cluster: RayCluster, reference: Any) -> None:
        self._cluster, self.reference = cluster, reference

    def ended(self) -> bool:
        return self._cluster.is_ready(self.reference)

    def result(self) -> JobReturn:
        try:
            return as_job_return(*self._cluster.get(self.reference))
        except Exception as error:
            return failed(_as_failure(error))


def _as_failure(error: Exception) -> RunFailed:
    """Say in one line why a task gave nothing back."""
    from ray.exceptions import RayTaskError, TaskCancelledError  # noqa: PLC0415 - Ray is optional

    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(error, TaskCancelledError) or isinstance(cause, TaskCancelledError):
        return JobKilled("cancelled")
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = f"{type(cause).__name__}: {lines[0] if lines else ''}"
    if isinstance(error, RayTaskError):  # of what runs on the node before there is a process
        missing = next((line for line in reversed(lines) if "ModuleNotFoundError" in line), None)
        hint = "; expected the project and its packages on every node" if missing else ""
        return RunFailed(f"{missing or told}{hint}")
    return JobKilled(f"its node or its worker died more often than hydra.launcher.max_retries allows ({told})")
