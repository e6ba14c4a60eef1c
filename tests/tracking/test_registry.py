"""`tlx register`: a run's model gets a name, a version and an alias, under which MLflow loads it."""

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.finished_runs import change_json
from tl_experiments.cli.verbs import main
from tl_experiments.tracking.mlflow_tracker import MlflowTracker

Make = Callable[..., MlflowTracker]
Begin = Callable[[str], tuple[Path, str]]
STORED_RUN = Path(__file__).parent.parent / "use" / "run_of_format_2"


@pytest.fixture
def finish(make_tracker: Make, tmp_path: Path) -> Begin:
    """Makes a run that has left a model: its folder and its id."""

    def made(uid: str) -> tuple[Path, str]:
        folder = Path(shutil.copytree(STORED_RUN, tmp_path / "runs" / uid))
        with make_tracker(f"{tmp_path.name}-{uid}", folder=folder) as tracker:
            tracker.log_metrics({"val/acc_best": 0.9930069930069931, "test/acc": 0.9860724}, step=0)
            tracker.log_model(folder / "model")
        assert tracker.run_id is not None
        return folder, tracker.run_id

    return made


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of a registered model, of this test alone."""
    return tmp_path.name


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["register", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["register", *arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def test_a_run_is_registered_once_and_the_alias_moves(
    finish: Begin, name: str, client: MlflowClient, capsys: pytest.CaptureFixture[str], store_uri: str
) -> None:
    (first, first_id), (second, second_id) = finish("first"), finish("second")
    assert said(capsys, str(first), name, "--alias", "champion") == [
        f"{name} version 1: models:/{name}/1",
        f"champion: version 1: models:/{name}@champion",
    ]
    assert said(capsys, str(first / "model"), name) == [f"{name} version 1, which it was before: models:/{name}/1"]
    assert said(capsys, second_id, name, "--alias", "champion", "--tracking-uri", store_uri) == [
        f"{name} version 2: models:/{name}/2",
        f"champion: version 2, until now version 1: models:/{name}@champion",
    ]
    assert said(capsys, str(second), name, "--alias", "champion")[1] == (
        f"champion: version 2: models:/{name}@champion"
    )
    versions = {version.version: version.run_id for version in client.search_model_versions(f"name = '{name}'")}
    assert versions == {1: first_id, 2: second_id}
    tags = client.get_model_version(name, "1").tags
    assert tags["weights_sha256"] == "60e346cb00acd3eb4d1b8be654f9e1fcdf0a0ee37114ca568104f8e3eb8b3a60"
    assert (tags["val/acc_best"], tags["test/acc"]) == ("0.993007", "0.986072")


def test_mlflow_loads_the_champion_whose_run_is_gone_from_the_disk(
    finish: Begin, name: str, capsys: pytest.CaptureFixture[str], store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finish("run")
    said(capsys, str(folder), name, "--alias", "champion")
    shutil.rmtree(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion", model_config={"device": "cpu"})
    assert model.input_example is None, "models of format 2 have no images with them"
    content = BytesIO()
    Image.new("RGB", (8, 8), "white").save(content, "PNG")
    [label] = model.predict(pd.DataFrame({"image": [content.getvalue()]}))["label"]
    assert label in set("0123456789")


def test_what_cannot_be_registered_is_told_in_a_line(
    finish: Begin,
    make_tracker: Make,
    name: str,
    tmp_path: Path,
    client: MlflowClient,
    capsys: pytest.CaptureFixture[str],
    store_uri: str,
) -> None:
    folder, run_id = finish("run")
    assert "Names cannot contain '/' or ':'" in refused(capsys, str(folder), f"{name}/x")
    assert "'latest' alias name (case insensitive) is reserved" in refused(
        capsys, str(folder), name, "--alias", "latest"
    )
    assert "Invalid alias name: 'a/b'" in refused(capsys, str(folder), name, "--alias", "a/b")
    assert not client.search_registered_models(f"name = '{name}'"), "nothing is made for an alias that is refused"
    assert refused(capsys, str(tmp_path / "none"), name) == f"{tmp_path / 'none'}: no such folder; expected a run"
    untracked = shutil.copytree(STORED_RUN, tmp_path / "untracked")
    assert refused(capsys, str(untracked), name) == (
        f"{untracked}: the run was not tracked in MLflow; expected one of tracking=mlflow"
    )
    there = ("--tracking-uri", store_uri)
    assert f"{'0' * 32}: no such run in {store_uri}" in refused(capsys, "0" * 32, name, *there)
    with make_tracker(f"{name}-unfinished", folder=tmp_path / "unfinished") as tracker:
        tracker.log_metrics({"val/acc": 0.5}, step=1)
    assert refused(capsys, str(tmp_path / "unfinished"), name).endswith(
        f"has no MLflow model of it; expected a finished run that was delivered, by: tlx sync {tmp_path / 'unfinished'}"
    )
    assert refused(capsys, str(tracker.run_id), name, *there).endswith("expected one that has finished")
    client.delete_run(run_id)
    assert refused(capsys, run_id, name, *there) == (
        f"{run_id}: was deleted in {store_uri}; restore it by `mlflow runs restore --run-id {run_id}`"
    )


def test_the_id_of_a_run_in_outputs_finds_the_store_that_it_was_tracked_in(
    finish: Begin, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run_id = finish("run")
    change_json(folder / "result.json", {"run_id": run_id})
    (tmp_path / "outputs").mkdir()
    (tmp_path / "runs").rename(tmp_path / "outputs" / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert said(capsys, run_id, name) == [f"{name} version 1: models:/{name}/1"]
    assert said(capsys, run_id[:8], name) == [f"{name} version 1, which it was before: models:/{name}/1"]


def test_a_run_that_was_not_delivered_is_told_how(
    finish: Begin, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finish("run")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    MlflowClient(other).search_experiments()
    assert refused(capsys, str(folder), name, "--tracking-uri", other) == (
        f"{folder}: {other} has no such run; deliver it by: tlx sync {folder} --tracking-uri {other}"
    )
