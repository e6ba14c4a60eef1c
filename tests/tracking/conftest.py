"""One real sqlite store for all tests of tracking: making its schema takes seconds."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tl_experiments.tracking.mlflow_tracker import MlflowTracker

STORED_MODEL = Path(__file__).parent.parent / "use" / "run_of_format_2" / "model"


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
    """A trained model, without the example images that today's have."""
    return Path(shutil.copytree(STORED_MODEL, tmp_path / "model"))
