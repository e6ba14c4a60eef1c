"""Real runs on real images with real weights: what they leave behind, and that they repeat to the bit."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors import safe_open

from tests.faults.processes import server
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments
from tl_experiments.inference import saved_model
from tl_experiments.runtime.errors import RunFailed

SMALL = ("dataset.train_size=100", "epochs=2", "backbone.image_size=32")
FILES = {
    "config.yaml", "metrics.jsonl", "result.json", "learning_curves.png", "confusion_matrix.png", "per_class.csv",
    "reliability.png", "wrong_gallery.png", "model/model.safetensors", "model/model.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sweep of two jobs, whose images were decoded by two workers; its store lies beside it."""
    folder = tmp_path_factory.mktemp("sweep")
    where = [f"hydra.sweep.dir={folder / 'jobs'}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    command = ("-m", "strategy=feature,finetune", "runtime.workers=2", *SMALL)
    done = server().start(*command, *where, cwd=folder, logs=folder).end(limit_seconds=300)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def tracked(sweep: Path) -> list[Run]:
    """The runs of the sweep as MLflow has them, in the order of the jobs."""
    client = MlflowClient(f"sqlite:///{sweep / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tl_experiments")
    assert experiment is not None
    return sorted(
        client.search_runs([experiment.experiment_id], "tags.`tl.kind` = 'run'"),
        key=lambda run: run.info.run_name or "",
    )


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_run_leaves_its_files_and_says_how_it_ended(sweep: Path):
    folder = sweep / "jobs" / "0"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found >= FILES
    result = result_of(folder)
    assert result["status"] == "FINISHED"
    assert {"uid", "run_id", "val/acc_best", "test/acc", "weights_sha256", "device", "seconds"} <= set(result)
    assert result["num_train_images"] == 100
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert result["val/acc_best"] == max(row["val/acc"] for row in epochs)


@pytest.mark.slow
def test_the_model_file_holds_the_weights_that_the_result_names(sweep: Path):
    folder = sweep / "jobs" / "1"
    description = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    assert description["weights_sha256"] == result_of(folder)["weights_sha256"]
    assert description["class_names"] == list("0123456789")
    assert description["temperature"] == result_of(folder)["val/temperature"] != 1
    assert description["tta"] == "none"
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as file:
        assert file.get_slice("head.weight").get_shape() == [10, 1280]


@pytest.mark.slow
def test_mlflow_holds_each_job_with_few_params_its_metrics_and_its_files(sweep: Path, tracked: list[Run]):
    assert [run.info.run_name for run in tracked] == ["0 feature", "1 finetune"]
    client = MlflowClient(f"sqlite:///{sweep / 'mlflow.db'}")
    for run in tracked:
        assert run.info.status == "FINISHED"
        assert 15 <= len(run.data.params) <= 40
        assert not [value for value in run.data.params.values() if "/" in value]
        assert {
            "train/loss",
            "train/acc",
            "val/loss",
            "val/acc",
            "lr",
            "test/acc",
            "val/acc_best",
            "test/ece",
            "val/temperature",
        } <= set(run.data.metrics)
        assert len(client.get_metric_history(run.info.run_id, "val/acc")) == 2
        assert {artifact.path for artifact in client.list_artifacts(run.info.run_id)} >= {
            "config.yaml", "confusion_matrix.png", "learning_curves.png", "per_class.csv", "reliability.png",
            "wrong_gallery.png", "model",
        }  # fmt: skip
        assert run.data.tags["tl.kind"] == "run"
        assert run.data.tags["tl.dataset_fingerprint"].startswith(run.inputs.dataset_inputs[0].dataset.digest)
    assert len({run.data.tags["tl.sweep_id"] for run in tracked}) == 1
    assert len({run.data.tags["tl.fingerprint"] for run in tracked}) == 2


def test_what_befalls_one_head_is_nothing_to_those_that_were_written_before(
    make_member: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
):
    members = [make_member(*SMALL, "dataset.train_size=40", "epochs=1", f"lr={lr}") for lr in (1e-3, 1e-2, 3e-3)]
    publish = saved_model.published_folder

    def refuse(path: Path):
        if path.parent == members[1].folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return publish(path)

    monkeypatch.setattr(saved_model, "published_folder", refuse)
    start = time.perf_counter()
    with pytest.raises(RunFailed, match=r"ENOSPC: No space left on device .*model"):
        run_experiments(members)
    assert [result_of(member.folder)["status"] for member in members] == ["FINISHED", "FAILED", "FAILED"]
    assert len(result_of(members[0].folder)["weights_sha256"]) == 64
    seconds = [result_of(member.folder)["seconds"] for member in members]
    assert sum(seconds) < 1.5 * (time.perf_counter() - start), "time together is shared, however a member ends"
