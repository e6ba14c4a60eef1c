"""One sweep for all launchers of clusters: jobs on the same features, and what must be true when it is over."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.sweep.conftest import Desk
from tests.sweep.faults import HELD_EPOCH, HOLD

EPOCHS = 12
RATES = ("lr=1e-3,1e-2", f"epochs={EPOCHS}")  # beside TINY; jobs 0 and 1 have the first seed
HELD = ("strategy._target_=faults.Held", "allow_targets=[faults.]", *RATES)


def require_once(desk: Desk, *, finished: int, failed: int = 0) -> None:
    """See that the first jobs have finished once and the last ones failed, with one run in MLflow for each."""
    states = ["FINISHED"] * finished + ["FAILED"] * failed
    assert [result["status"] for _, result in sorted(desk.results().items())] == states
    runs = sorted(desk.runs("run"), key=lambda run: int((run.info.run_name or "").split()[0]))
    assert [run.info.status for run in runs] == states
    assert len({run.data.tags["tl.uid"] for run in runs}) == len(states)
    assert desk.parent().info.status == states[-1]
    assert (desk.sweep_folder / "report.html").exists()
    assert {entry["job"]: entry["state"] for entry in desk.ledger()} == dict(enumerate(states))
    for run in runs[:finished]:
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


@contextmanager
def held(desk: Desk) -> Iterator[None]:
    """Keep the jobs that begin in here in their middle, until it is left."""
    (desk.folder / HOLD).touch()
    try:
        yield
    finally:
        (desk.folder / HOLD).unlink()


def in_the_middle(desk: Desk, job: int) -> bool:
    """Whether a job that is held has come so far."""
    logs = desk.folder.glob(f"outputs/sweeps/*/{job}/metrics.jsonl")
    return sum(len(log.read_text().splitlines()) for log in logs) == HELD_EPOCH - 1
