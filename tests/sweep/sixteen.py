"""One sweep for all launchers of clusters: sixteen jobs on the same features, and what must be true when it is over."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.sweep.conftest import Desk

EPOCHS = 12
SIXTEEN = ("seed=0,1,2,3,4,5,6,7", "lr=1e-3,1e-2", f"epochs={EPOCHS}")  # beside TINY


def require_sixteen(desk: Desk) -> None:
    """See that every job has finished once, and that MLflow has one run of each, under one parent."""
    assert [result["status"] for result in desk.results().values()] == ["FINISHED"] * 16
    runs = desk.runs("run")
    assert [run.info.status for run in runs] == ["FINISHED"] * 16
    assert len({run.data.tags["tl.uid"] for run in runs}) == 16
    assert desk.parent().info.status == "FINISHED"
    assert {entry["job"]: entry["state"] for entry in desk.ledger()} == dict.fromkeys(range(16), "FINISHED")
    for run in runs:
        history = desk.client.get_metric_history(run.info.run_id, "val/acc")
        assert [point.step for point in history] == list(range(1, EPOCHS + 1)), (
            "an epoch is missing, or was logged twice"
        )


def digests(desk: Desk) -> dict[int, str]:
    """What the weights of each job are known by."""
    return {job: result["weights_sha256"] for job, result in desk.results().items()}


def writers(desk: Desk) -> Iterator[tuple[int, int]]:
    """Yield the processes that print to a log of a job, with the number of the job."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):  # it has ended meanwhile
            log = (process / "fd" / "1").readlink()
            if log.name == "job.log" and log.is_relative_to(desk.folder):
                yield int(process.name), int(log.parent.name)


def in_the_middle(desk: Desk, job: int) -> bool:
    """Whether a job has trained some epochs, and some are left."""
    logs = desk.folder.glob(f"outputs/sweeps/*/{job}/metrics.jsonl")
    return 2 <= sum(len(log.read_text().splitlines()) for log in logs) < EPOCHS - 3
