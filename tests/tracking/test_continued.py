"""A run that was stopped is continued under its uid: one run in MLflow, every point once, its end told anew."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from mlflow import MlflowClient

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


def test_a_run_may_be_closed_for_a_process_that_died(
    make_tracker: Callable[..., MlflowTracker], client: MlflowClient
) -> None:
    died = make_tracker("died").__enter__()
    assert died.run_id is not None
    with pytest.raises(Terminated), make_tracker("died"):
        raise Terminated("killed by SIGKILL")
    assert client.get_run(died.run_id).info.status == "KILLED"


def test_a_run_belongs_to_its_parent(store_uri: str, client: MlflowClient) -> None:
    tracker = MlflowTracker(
        uri=store_uri, experiment_name="tests", run_name="0", uid="child", parent_run_id="a-parent", tags={}
    )
    with tracker:
        assert tracker.run_id is not None
        assert client.get_run(tracker.run_id).data.tags["mlflow.parentRunId"] == "a-parent"
