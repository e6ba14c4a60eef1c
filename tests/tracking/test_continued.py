"""A run that was stopped is continued under its uid: one run in MLflow, every point once, its end told anew."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.processes import server
from tl_experiments.runtime.signals import Terminated
from tl_experiments.tracking.mlflow_tracker import MlflowTracker


def stop(tracker: MlflowTracker) -> str:
    """Log an epoch and a param, and fail; returns the run's id."""
    with suppress(ZeroDivisionError), tracker:
        tracker.log_params({"lr": 0.1, "threads": 1})
        tracker.log_metrics({"val/acc": 0.5, "val/loss": 1.0}, step=1)
        tracker.log_metrics({"val/acc_best": 0.5}, step=0)
        raise ZeroDivisionError("by design")
    assert tracker.run_id is not None
    return tracker.run_id


def test_the_same_uid_continues_the_run_and_logs_no_epoch_twice(
    make_tracker: Callable[..., MlflowTracker], client: MlflowClient
) -> None:
    run_id = stop(make_tracker("continued"))
    assert client.get_run(run_id).data.tags["tl.error"] == "ZeroDivisionError: by design"
    with make_tracker("continued") as tracker:
        assert tracker.run_id == run_id
        assert client.get_run(run_id).info.status == "RUNNING"
        tracker.log_params({"lr": 0.1, "threads": 2, "seed": 0})
        for step, acc in ((1, 0.5), (2, 0.75)):
            tracker.log_metrics({"val/acc": acc}, step=step)
        tracker.log_metrics({"val/acc_best": 0.75}, step=0)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "tl.error" not in run.data.tags
    assert run.data.params == {"lr": "0.1", "threads": "1", "seed": "0"}
    assert run.data.tags["tl.changed_params"] == "threads=2"  # MLflow cannot change a param
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "val/acc")] == [
        (1, 0.5),
        (2, 0.75),
    ]
    assert run.data.metrics["val/acc_best"] == 0.75  # a summary is what it was last


def test_another_uid_is_another_run(make_tracker: Callable[..., MlflowTracker]) -> None:
    with make_tracker("one") as one, make_tracker("other") as other:
        assert one.run_id != other.run_id


DIES = """
import os, sys
from pathlib import Path
from tl_experiments.tracking.mlflow_tracker import MlflowTracker
tracker = MlflowTracker(
    uri=sys.argv[1], experiment_name="tests", run_name="0", uid="died",
    parent_uid=None, folder=Path(sys.argv[2]), tags={},
)
with tracker:
    tracker.log_metrics({"val/acc": 0.5}, step=1)
    print(tracker.run_id, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_run_may_be_closed_for_a_process_that_died_and_what_it_had_not_sent_is_sent(
    make_tracker: Callable[..., MlflowTracker], client: MlflowClient, store_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    dies = server().start(store_uri, str(tmp_path), cwd=tmp_path, logs=tmp_path, program=str(tmp_path / "dies.py"))
    ended = dies.end()
    assert ended.code == -9, ended.err
    run_id = ended.out.strip()
    with (tmp_path / "tracking.jsonl").open("a") as file:
        file.write('{"kind": "metrics", "st')  # as a process leaves it that is killed while it writes
    assert client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(Terminated), make_tracker("died", folder=tmp_path):
        raise Terminated("killed by SIGKILL")
    run = client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"val/acc": 0.5}


def test_a_run_belongs_to_its_parent_by_the_parents_uid(
    make_tracker: Callable[..., MlflowTracker], client: MlflowClient
) -> None:
    with make_tracker("a-parent") as parent, make_tracker("a-child", parent_uid="a-parent") as child:
        assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_parent_that_comes_later_is_found_at_the_end(
    make_tracker: Callable[..., MlflowTracker], client: MlflowClient
) -> None:
    with make_tracker("early", parent_uid="late") as child:
        assert "mlflow.parentRunId" not in client.get_run(child.run_id).data.tags
        with make_tracker("late") as parent:
            pass
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
