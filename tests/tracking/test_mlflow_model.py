"""A run's artifacts hold a model that MLflow loads, evaluates and serves; it says what the run's own model says."""

import base64
import http.client
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from tests.conftest import compose_test_member
from tests.faults.faulty_server import free_port, mlflow_serves
from tl_experiments.build import build_classifier
from tl_experiments.data.digits import digits
from tl_experiments.data.transforms import draw
from tl_experiments.experiment import run_experiments
from tl_experiments.tracking import model_files
from tl_experiments.tracking.named_run import model_folder
from tl_experiments.tracking.result import read_result
from tl_experiments.tracking.sync import sync

TINY = ("backbone=timm", "backbone.name=test_resnet", "backbone.weights=null", "backbone.image_size=32")
QUICK = ("strategy=finetune", "strategy.batchnorm=train", "lr=3e-3", "epochs=4", "dataset.train_size=400")
NUM_IMAGES = 200


@dataclass(frozen=True)
class Tracked:
    """A run that has finished, and images that it has not seen."""

    folder: Path
    store: str
    run_id: str
    table: pd.DataFrame  # image: bytes of PNG files; label

    @property
    def uri(self) -> str:
        return f"runs:/{self.run_id}/model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    desk = tmp_path_factory.mktemp("desk")
    store = f"sqlite:///{desk / 'mlflow.db'}"
    member = compose_test_member(desk / "run", "tracking=mlflow", f"tracking.uri={store}", *TINY, *QUICK)
    run_experiments([member])
    test = digits(train_size=None, val_fraction=0.1, split_seed=0, image_size=32, crop_pct=1.0).test
    images = [test.source.image(int(index)) for index in test.indices[:NUM_IMAGES]]
    labels = [str(int(label)) for label in test.labels[:NUM_IMAGES]]
    table = pd.DataFrame({"image": [png(image) for image in images], "label": labels})
    return Tracked(member.folder, store, read_result(member.folder)["run_id"], table)


@pytest.fixture(autouse=True)
def at_the_store(run: Tracked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.store)
    monkeypatch.chdir(tmp_path)


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def own_answers(run: Tracked, model: Path | None = None) -> tuple[list[str], np.ndarray]:
    """What a model says without MLflow, the run's unless told otherwise: labels and probabilities (N, K)."""
    with build_classifier(model or run.folder / "model", device="cpu") as classifier:
        canvas, names = classifier.description.canvas, classifier.description.class_names
        drawn = [draw(Image.open(io.BytesIO(content)).convert("RGB"), canvas) for content in run.table["image"]]
        probs = classifier.probabilities(torch.from_numpy(np.stack(drawn)))
    return [names[label] for label in probs.argmax(dim=1)], probs.numpy()


def test_a_loaded_model_says_what_the_run_says(run: Tracked) -> None:
    labels, probs = own_answers(run)
    model = mlflow.pyfunc.load_model(run.uri, model_config={"device": "cpu"})
    answers = model.predict(run.table[["image"]], params={"top_k": 3})
    assert list(answers) == ["label", "prob", "label_2", "prob_2", "label_3", "prob_3"]
    assert len(set(labels)) > 5, "a model that has learned nothing agrees with anything"
    assert answers["label"].tolist() == labels
    highest = -np.sort(-probs, axis=1)[:, :3]
    assert np.abs(answers[["prob", "prob_2", "prob_3"]].to_numpy() - highest).max() < 1e-6
    alone = model.predict(run.table[["image"]].head(1))
    assert alone.to_dict("list") == {"label": labels[:1], "prob": answers["prob"].tolist()[:1]}


def test_the_model_tells_its_signature_and_shows_a_real_image(run: Tracked) -> None:
    model = mlflow.pyfunc.load_model(run.uri)
    assert model.metadata.signature == model_files.SIGNATURE
    assert model.metadata.run_id == run.run_id
    [content] = model.input_example["image"]
    assert content == (run.folder / "model" / "example-1.png").read_bytes()
    assert model.predict(model.input_example)["label"][0] in set("0123456789")
    [told] = json.loads(MlflowClient().get_run(run.run_id).data.tags["mlflow.log-model.history"])
    assert told["artifact_path"] == "model", "MLflow's pages show it as a model"


def test_a_bad_image_is_named_by_its_row(run: Tracked) -> None:
    model = mlflow.pyfunc.load_model(run.uri)
    table = pd.DataFrame({"image": [run.table["image"][0], b"/etc/passwd"]})
    with pytest.raises(MlflowException, match=r"^row 1: cannot be read as an image .*; replace or remove it$"):
        model.predict(table)
    with pytest.raises(MlflowException, match=r"^top_k=11: expected 1 to 10, the number of classes$"):
        model.predict(run.table[["image"]].head(1), params={"top_k": 11})
    with pytest.raises(MlflowException, match="missing inputs"):
        model.predict(pd.DataFrame({"path": ["/etc/passwd"]}))


def test_code_of_ones_own_is_refused_until_the_caller_allows_it(run: Tracked, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(MlflowClient().download_artifacts(run.run_id, "model"), place)
    said = json.loads((place / "model.json").read_text())
    said["head"]["_target_"] = "my_code.Head"
    (place / "model.json").write_text(json.dumps(said))
    with pytest.raises(Exception, match=r"my_code\.Head.*allow_targets"):
        mlflow.pyfunc.load_model(str(place))
    with pytest.raises(Exception, match=r"my_code"):  # allowed, and not there
        mlflow.pyfunc.load_model(str(place), model_config={"allow_targets": ["my_code."]})


def test_mlflow_evaluates_it(run: Tracked) -> None:
    labels, _ = own_answers(run)
    experiment = MlflowClient().get_run(run.run_id).info.experiment_id
    with mlflow.start_run(experiment_id=experiment, run_name="evaluated"):
        found = mlflow.models.evaluate(
            run.uri, run.table, targets="label", model_type="classifier", model_config={"labels_only": True}
        )
    accuracy = np.mean([label == true for label, true in zip(labels, run.table["label"], strict=True)])
    assert found.metrics["example_count"] == NUM_IMAGES
    assert found.metrics["accuracy_score"] == pytest.approx(accuracy)


def test_a_run_that_is_gone_from_the_disk_is_fetched_from_the_store(
    run: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "caches"))
    _, probs = own_answers(run)
    away = run.folder.with_name("away")
    run.folder.rename(away)
    try:
        fetched = model_folder(run.run_id)
        assert fetched.is_relative_to(tmp_path / "caches")
        assert {path.name for path in fetched.iterdir()} == {path.name for path in (away / "model").iterdir()}
        assert np.array_equal(own_answers(run, fetched)[1], probs)
        assert model_folder(run.run_id) == fetched, "once is enough"
    finally:
        away.rename(run.folder)


def test_a_delivery_that_is_repeated_changes_nothing(run: Tracked) -> None:
    [stored] = Path(run.store.removeprefix("sqlite:///")).parent.glob(f"mlartifacts/{run.run_id}/artifacts/model")
    assert {path.name for path in stored.iterdir()} >= model_files.NAMES
    before = {path.name: path.read_bytes() for path in stored.iterdir()}
    (run.folder / "tracking.sent").unlink()
    (stored / "MLmodel").unlink()  # as of a delivery that was killed
    assert sync(run.folder, tracking_uri=None) == 0
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == before


@pytest.fixture(scope="module")
def served(run: Tracked, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of `mlflow models serve`."""
    port, desk = free_port(), tmp_path_factory.mktemp("served")
    command = ("models", "serve", "-m", run.uri, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))
    environment = {"MLFLOW_TRACKING_URI": run.store}
    with mlflow_serves(*command, cwd=desk, environment=environment, answers=lambda: _answers(port)):
        yield port


def _answers(port: int) -> bool:
    try:
        return _ask(port, "/ping")[0] == 200
    except OSError:
        return False


def _ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split", "inputs"])
def test_mlflow_serves_it(run: Tracked, served: int, form: str) -> None:
    images = [base64.b64encode(content).decode() for content in run.table["image"]]
    tables = {
        "dataframe_records": [{"image": image} for image in images],
        "dataframe_split": {"columns": ["image"], "data": [[image] for image in images]},
        "inputs": {"image": images},
    }
    status, answer = _ask(served, "/invocations", json.dumps({form: tables[form]}).encode())
    assert status == 200, answer
    labels, probs = own_answers(run)
    told = json.loads(answer)["predictions"]
    assert [row["label"] for row in told] == labels
    assert np.abs(np.array([row["prob"] for row in told]) - probs.max(axis=1)).max() < 1e-6


@pytest.mark.slow
def test_the_example_request_of_the_artifacts_is_answered_and_a_bad_one_refused(run: Tracked, served: int) -> None:
    example = Path(MlflowClient().download_artifacts(run.run_id, f"model/{model_files.SERVING_EXAMPLE}"))
    status, answer = _ask(served, "/invocations", example.read_bytes())
    assert (status, len(json.loads(answer)["predictions"])) == (200, 1)
    bad = {"dataframe_records": [{"image": base64.b64encode(b"no image").decode()}]}
    status, answer = _ask(served, "/invocations", json.dumps(bad).encode())
    assert status == 400
    assert "row 0: cannot be read as an image" in json.loads(answer)["message"]
    assert _ask(served, "/ping")[0] == 200
