"""A program: many jobs at once, each a process that tracks a run as a sweep's jobs do, until a file says enough.

Typed `ADDRESS FOLDER NUM_JOBS`; jobs are forked: MLflow takes a second to import.
"""

import json
import multiprocessing
import shutil
import sys
import time
from pathlib import Path

from tl_experiments.tracking.mlflow_tracker import MlflowTracker

EXPERIMENT = "team"
SWEEP = "sweep"
ENOUGH = "enough"
METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")
EPOCH_SECONDS = 0.3
STORED_MODEL = Path(__file__).parent.parent / "use" / "run_of_format_2" / "model"


def uid_of(number: int) -> str:
    return f"job-{number}"


def run_job(address: str, sweep: Path, number: int) -> None:
    """Track a run; `made.json` says how many epochs it had."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    tracker = MlflowTracker(
        uri=address,
        experiment_name=EXPERIMENT,
        run_name=f"{number} feature",
        uid=uid_of(number),
        parent_uid=SWEEP,
        folder=folder,
        tags={"tl.sweep_id": SWEEP},
    )
    with tracker:
        tracker.log_params({"lr": 0.1 / (number + 1), "strategy": "feature", "seed": number})
        tracker.log_dataset(name="digits", digest=f"{number:064}", context="train", source="here")
        epoch = 0
        while not (sweep / ENOUGH).exists():
            epoch += 1
            tracker.log_metrics(dict.fromkeys(METRICS, epoch / (number + 2)), step=epoch)
            time.sleep(EPOCH_SECONDS)
        tracker.log_metrics({"test/acc": number / 100}, step=0)
        (folder / "result.json").write_text(json.dumps({"job": number}))
        tracker.log_file(folder / "result.json")
        if number == 0:
            shutil.copytree(STORED_MODEL, folder / "model")
            tracker.log_model(folder / "model")
    (folder / "made.json").write_text(json.dumps({"epochs": epoch}))


def main(address: str, sweep: Path, num_jobs: int) -> int:
    fork = multiprocessing.get_context("fork")
    jobs = [fork.Process(target=run_job, args=(address, sweep, number)) for number in range(num_jobs)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return sum(job.exitcode != 0 for job in jobs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
