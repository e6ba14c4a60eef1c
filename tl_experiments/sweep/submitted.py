"""What submitit runs on a node: one job of a sweep, which is queued again when the cluster takes its node away."""

import logging
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.runtime.signals import Preempted, Terminated
from tl_experiments.sweep.causes import JobKilled, cause_of
from tl_experiments.sweep.cluster import load_job
from tl_experiments.sweep.pre_emption import is_taken_by_slurm
from tl_experiments.sweep.process import as_plain, failed, run_hydra_job


@dataclass(frozen=True)
class SubmittedJob:
    """A function that submitit pickles.

    Attributes:
        packed: of the launcher.
        override: that names the job's group.
        number: as Hydra counts the job.
        log: file that gets what the job prints.
        told: what it runs, for people.
    """

    packed: bytes
    override: str
    number: int
    log: str
    told: str

    def __call__(self) -> tuple[str, Any]:
        """Run the job, and return how it ended as plain values; does not return from one that is queued again."""
        queue_again = signal.getsignal(signal.SIGUSR2)  # of submitit, which would interrupt the job wherever it is
        self._print_to_log()
        logging.getLogger("submitit").propagate = False  # Hydra's loggers would say it again
        try:
            return as_plain(run_hydra_job(*load_job(self.packed, override=self.override, number=self.number)))
        except Preempted as error:
            return self._queue_again(queue_again, error)
        except (KeyboardInterrupt, Terminated) as error:
            if isinstance(error, Terminated) and is_taken_by_slurm():
                return self._queue_again(queue_again, error)
            return as_plain(failed(JobKilled(cause_of(error))))

    def checkpoint(self) -> Any:
        """Return what is queued again: the same job, whose folder has its checkpoint."""
        import submitit  # noqa: PLC0415 - submitit is optional

        return submitit.helpers.DelayedSubmission(self)

    def _queue_again(self, handler: Any, error: Terminated) -> tuple[str, Any]:
        """Let submitit do so, which ends this process; it refuses after too many times."""
        from submitit.core.utils import UncompletedJobError  # noqa: PLC0415 - submitit is optional

        sys.stdout.write(f"{error}: queued again, to go on from its checkpoint\n")
        try:
            handler(signal.SIGUSR2, None)
        except UncompletedJobError as refusal:
            return as_plain(failed(JobKilled(f"{error}; {refusal}")))
        except subprocess.CalledProcessError:
            sys.stdout.write("Slurm has queued it again already\n")
        raise error  # without a result, for which the sweep waits on

    def _print_to_log(self) -> None:
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        sys.stdout.write(f"starts on {platform.node()}: {self.told or 'the defaults'}\n")
