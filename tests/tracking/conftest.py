"""One real sqlite store for all tests of tracking: making its schema takes seconds."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tl_experiments.tracking.mlflow_tracker import MlflowTracker


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def client(store_uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=store_uri)


@pytest.fixture
def make_tracker(store_uri: str, tmp_path: Path) -> Callable[..., MlflowTracker]:
    def make(
        uid: str | None = None, *, folder: Path | None = None, parent_uid: str | None = None, **tags: str
    ) -> MlflowTracker:
        uid = uid or uuid.uuid4().hex
        return MlflowTracker(
            uri=store_uri,
            experiment_name="tests",
            run_name="0 feature",
            uid=uid,
            parent_uid=parent_uid,
            folder=folder or tmp_path / "runs" / uid,
            tags=tags,
        )

    return make


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder
