"""A store opens for many processes at once, from any folder, and says plainly why it cannot be opened."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.processes import server
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.address import absolute_uri
from tl_experiments.tracking.mlflow_store import open_store
from tl_experiments.tracking.patience import limited

START_TOGETHER = """
import multiprocessing
from pathlib import Path
from tl_experiments.tracking import mlflow_store
from tl_experiments.tracking.mlflow_tracker import MlflowTracker

mlflow_store._make_database = mlflow_store._make_database.__wrapped__  # no copy of a schema that was made before

def track(name, start):
    start.wait(60)
    tracker = MlflowTracker(
        uri=None, experiment_name="e", run_name=name, uid=name, parent_uid=None, folder=Path(name), tags={}
    )
    with tracker:
        for epoch in range(5):
            tracker.log_metrics({"val/acc": epoch / 10, "train/loss": 1.0}, step=epoch)

fork = multiprocessing.get_context("fork")
start = fork.Barrier(4)
processes = [fork.Process(target=track, args=(str(number), start)) for number in range(4)]
for process in processes:
    process.start()
for process in processes:
    process.join()
assert [process.exitcode for process in processes] == [0, 0, 0, 0]
"""


def test_four_processes_that_start_together_on_a_fresh_store_all_succeed_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    script = tmp_path / "start_together.py"
    script.write_text(START_TOGETHER)
    program = server().start(cwd=tmp_path, program=str(script))
    assert (program.wait(), program.output) == (0, "")

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "outputs" / "mlartifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name or "" for run in runs) == ["0", "1", "2", "3"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not (tmp_path / "mlruns").exists()


def test_the_address_is_the_setting_then_the_environment_then_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert absolute_uri(None) == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert absolute_uri(None) == "http://server:5000"
    assert absolute_uri("sqlite:///mine/runs.db") == f"sqlite:///{tmp_path}/mine/runs.db"
    assert absolute_uri("sqlite:////data/runs.db") == "sqlite:////data/runs.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "sqlite:///", "ftp://server", "mlflow.db"])
def test_addresses_that_mlflow_cannot_use_are_refused(uri: str) -> None:
    with pytest.raises(SettingError, match=r"expected sqlite:///FILE\.db") as caught:
        absolute_uri(uri)
    assert "\n" not in str(caught.value)


def test_an_experiment_is_found_again(store_uri: str) -> None:
    first = open_store(store_uri, experiment_name="again")
    assert open_store(store_uri, experiment_name="again").experiment_id == first.experiment_id


def test_a_deleted_experiment_is_named_with_the_way_back(store_uri: str) -> None:
    store = open_store(store_uri, experiment_name="gone")
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(SettingError, match=f"experiment_name=gone was deleted.*--experiment-id {store.experiment_id}"):
        open_store(store_uri, experiment_name="gone")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"tracking\.uri=.*/file/mlflow\.db cannot be opened") as caught:
        open_store(f"sqlite:///{tmp_path}/file/mlflow.db", experiment_name="e")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("these are notes about my runs\n" * 100)
    with pytest.raises(SettingError, match=r"cannot be opened.*not a database") as caught:
        open_store(f"sqlite:///{tmp_path}/mlflow.db", experiment_name="e")
    assert "\n" not in str(caught.value)


def test_a_database_without_its_driver_names_the_driver() -> None:
    with pytest.raises(SettingError, match="cannot be opened: No module named"):
        open_store("mysql+cymysql://host/runs", experiment_name="e")


def test_a_server_that_is_away_is_reported_soon() -> None:
    started = time.monotonic()
    with limited(5), pytest.raises(SettingError, match=r"http://127\.0\.0\.1:9 cannot be opened"):
        open_store("http://127.0.0.1:9", experiment_name="e")
    assert time.monotonic() - started < 10
