"""Whether SIGTERM is a pre-emption by Slurm: it sends the same to a job that somebody cancels."""

import os
import re
import subprocess


def is_taken_by_slurm() -> bool:
    """Whether Slurm wants the node of this job for another one; False where this is no job of Slurm.

    The warning SIGUSR2 comes with a pre-emption only where PreemptParameters has send_user_signal.
    """
    if "SLURM_JOB_ID" not in os.environ or os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return False
    command = ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    restarts = re.search(r"\bRestarts=(\d+)", told)
    is_queued_again = restarts is not None and int(restarts[1]) > int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return is_queued_again or re.search(r"\bPreemptTime=\d", told) is not None  # the latter in its grace time
