"""A tracked run shows in MLflow what was logged, and how it ended."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from mlflow import MlflowClient

from tl_experiments.runtime.signals import Terminated, terminable
from tl_experiments.tracking.mlflow_tracker import MlflowTracker

Make = Callable[..., MlflowTracker]


def run_until(error: BaseException, tracker: MlflowTracker) -> str:
    """Raise `error` inside the run; return the run's id."""
    with pytest.raises(type(error)), tracker:
        raise error
    assert tracker.run_id is not None
    return tracker.run_id


def test_a_run_that_ends_well_is_finished(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker("uid-0") as tracker:
        assert client.get_run(tracker.run_id).info.status == "RUNNING"
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "0 feature"
    assert run.data.tags["tl.uid"] == "uid-0"
    assert run.data.tags["tl.kind"] == "run"
    assert run.data.tags["mlflow.user"]
    assert "tl.error" not in run.data.tags


def test_a_run_that_raises_is_failed_and_says_why(make_tracker: Make, client: MlflowClient) -> None:
    run = client.get_run(run_until(ValueError("lr exploded" * 200), make_tracker("uid-0")))
    assert run.info.status == "FAILED"
    assert run.data.tags["tl.error"].startswith("ValueError: lr exploded")
    assert len(run.data.tags["tl.error"]) == 500


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated("received SIGTERM")])
def test_a_run_that_was_stopped_is_killed(error: BaseException, make_tracker: Make, client: MlflowClient) -> None:
    assert client.get_run(run_until(error, make_tracker())).info.status == "KILLED"


def test_sigterm_kills_the_run(make_tracker: Make, client: MlflowClient) -> None:
    tracker = make_tracker()
    with pytest.raises(Terminated), terminable(), tracker:
        os.kill(os.getpid(), signal.SIGTERM)
    assert client.get_run(tracker.run_id).info.status == "KILLED"


def test_a_store_that_is_away_at_the_end_does_not_hide_what_ended_the_run(
    make_tracker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("the store is away")

    monkeypatch.setattr(MlflowClient, "set_terminated", away)
    with pytest.raises(ValueError, match="the cause"), make_tracker():
        raise ValueError("the cause")


def test_params_read_as_on_the_command_line(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker() as tracker:
        tracker.log_params({"lr": 1e-3, "epochs": 10, "backbone.image_size": None, "optimizer.nesterov": True})
    params = client.get_run(tracker.run_id).data.params
    assert params == {"lr": "0.001", "epochs": "10", "backbone.image_size": "null", "optimizer.nesterov": "true"}


def test_metrics_keep_their_steps(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker() as tracker:
        for epoch in (1, 2, 3):
            tracker.log_metrics({"val/acc": epoch / 10, "lr": 1e-3}, step=epoch)
    history = client.get_metric_history(tracker.run_id, "val/acc")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_metrics_of_a_step_cost_one_call(
    make_tracker: Make, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, *args: object, **kwargs: object) -> object:
        calls.append(kwargs)
        return log_batch(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    with make_tracker() as tracker:
        monkeypatch.setattr(MlflowClient, "log_batch", counted)
        tracker.log_metrics({f"metric/{i}": float(i) for i in range(20)} | {"bad": float("inf")}, step=1)
    assert len(calls) == 1
    assert len(client.get_run(tracker.run_id).data.metrics) == 20


def test_values_that_are_not_finite_are_left_out_and_named(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker() as tracker:
        tracker.log_metrics({"train/loss": float("inf"), "val/acc": 0.1}, step=1)
        tracker.log_metrics({"train/loss": 0.5, "val/loss": float("nan")}, step=2)
    data = client.get_run(tracker.run_id).data
    assert data.metrics == {"val/acc": 0.1, "train/loss": 0.5}
    assert data.tags["tl.nonfinite"] == "train/loss, val/loss"


def test_the_data_set_is_an_input_of_the_run(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker() as tracker:
        tracker.log_dataset(name="digits", digest="0123456789abcdef" * 4, context="train", source="scikit-learn")
    [logged] = client.get_run(tracker.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "digits"
    assert logged.dataset.digest == ("0123456789abcdef" * 4)[:36]
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "train")]


def test_files_and_model_lie_under_the_store(
    make_tracker: Make, client: MlflowClient, store_uri: str, tmp_path: Path, model_folder: Path
) -> None:
    (tmp_path / "curves.png").write_bytes(b"picture")
    with make_tracker(folder=tmp_path) as tracker:
        tracker.log_file(tmp_path / "curves.png")
        tracker.log_model(model_folder)
    artifacts = Path(store_uri.removeprefix("sqlite:///")).parent / "mlartifacts" / str(tracker.run_id) / "artifacts"
    files = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    own = {"model.json", "model.safetensors", "manifest.json"}
    mlflows = {"MLmodel", "mlflow_model.py", "requirements.txt", "python_env.yaml"}
    assert files == {"curves.png", *(f"model/{name}" for name in own | mlflows)}
    assert {path.name for path in model_folder.iterdir()} == own
    requirements = (artifacts / "model" / "requirements.txt").read_text()
    assert "mlflow==" in requirements
    assert "tl_experiments" not in requirements, "PyPI has it not: who took the name would be installed"
    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {"curves.png", "model"}


def test_many_runs_are_open_at_once(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker("a") as first, make_tracker("b") as second:
        first.log_metrics({"val/acc": 0.1}, step=1)
        second.log_metrics({"val/acc": 0.2}, step=1)
    assert client.get_run(first.run_id).data.metrics == {"val/acc": 0.1}
    assert client.get_run(second.run_id).data.metrics == {"val/acc": 0.2}


def test_the_link_finds_the_runs_of_the_sweep_and_no_others(make_tracker: Make, client: MlflowClient) -> None:
    runs = []
    for uid, tags in (("x", {"tl.sweep_id": "s1"}), ("y", {"tl.sweep_id": "s1"}), ("z", {"tl.sweep_id": "s2"})):
        with make_tracker(uid, **tags) as tracker:
            runs.append(tracker.run_id)
            link = tracker.charts_link() if uid == "y" else ""
        if link:
            kept = link
    query = parse_qs(kept.partition("?")[2])
    experiment = client.get_run(runs[0]).info.experiment_id
    assert f"#/experiments/{experiment}/runs?" in kept
    found = client.search_runs([experiment], query["searchFilter"][0])
    assert {run.info.run_id for run in found} == set(runs[:2])


def test_a_single_run_links_to_itself(make_tracker: Make, client: MlflowClient) -> None:
    with make_tracker("lonely") as tracker:
        link = tracker.charts_link()
    assert link is not None
    [found] = client.search_runs(
        [client.get_run(tracker.run_id).info.experiment_id], parse_qs(link.partition("?")[2])["searchFilter"][0]
    )
    assert found.info.run_id == tracker.run_id


def test_tracking_leaves_the_global_random_generator_alone(make_tracker: Make) -> None:
    random.seed(0)
    before = random.getstate()
    with make_tracker() as tracker:
        tracker.log_metrics({"val/acc": 0.1}, step=1)
    assert random.getstate() == before


def test_nothing_is_touched_before_the_run_begins(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    tracker = MlflowTracker(
        uri=uri, experiment_name="tests", run_name="0", uid="u", parent_uid=None, folder=tmp_path, tags={}
    )
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        tracker.log_params({"lr": 1.0})
