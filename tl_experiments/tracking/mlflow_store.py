"""Opens an MLflow store: one absolute address, and a schema made once, even when many processes start together."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.links import SQLITE, is_server

LOCK_SECONDS = 300
BUSY_SECONDS = 60


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment in it."""

    uri: str
    client: MlflowClient
    experiment_id: str


def open_store(address: str, *, experiment_name: str) -> Store:
    """Connect to the store and find or create the experiment.

    Args:
        address: as `absolute_uri` gives it.
        experiment_name: made when it is missing.

    Raises:
        SettingError: the store cannot be opened, or its experiment was deleted.
    """
    try:
        if address.startswith(SQLITE):
            return _open_sqlite(address, experiment_name)
        return _connect(address, experiment_name, artifacts=None)
    except Timeout as error:
        raise SettingError(
            f"tracking.uri={address}: another process has held {error.lock_file} for {LOCK_SECONDS} s; "
            "end it, or delete the file when no run is starting"
        ) from error
    except (OSError, ImportError, MlflowException, SQLAlchemyError) as error:
        raise SettingError(f"tracking.uri={address} cannot be opened: {_one_line(error)}") from error


def _open_sqlite(address: str, experiment_name: str) -> Store:
    """Connect under a lock: first contact writes the schema, and two processes at once would break it for good."""
    database = Path(address.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=LOCK_SECONDS):
        if not database.exists():
            _make_database(database)
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return _connect(address, experiment_name, artifacts=database.parent / "mlartifacts")
            except (MlflowException, SQLAlchemyError) as error:
                # A process that is busy or dying may hold the database for longer than the 20 s that MLflow waits.
                if "database is locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _make_database(database: Path) -> None:
    """Write the schema beside its place and move it there: a process that is killed meanwhile leaves no half of it."""
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    unfinished = database.with_name(f".{database.name}.{os.getpid()}")
    MlflowClient(tracking_uri=f"{SQLITE}{unfinished}").search_experiments(max_results=1)
    unfinished.replace(database)


def _connect(address: str, experiment_name: str, *, artifacts: Path | None) -> Store:
    client = MlflowClient(tracking_uri=address, registry_uri=address)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        location = artifacts.as_uri() if artifacts else None
        try:
            return Store(address, client, client.create_experiment(experiment_name, artifact_location=location))
        except MlflowException:  # on a server another run may have made it in between
            experiment = client.get_experiment_by_name(experiment_name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        hint = "its server" if is_server(address) else f"MLFLOW_TRACKING_URI={address}"
        raise SettingError(
            f"tracking.experiment_name={experiment_name} was deleted in {address}: choose another name, or restore it "
            f"by `mlflow experiments restore --experiment-id {experiment.experiment_id}` with {hint}"
        )
    return Store(address, client, experiment.experiment_id)


def _one_line(error: Exception) -> str:
    """Return what went wrong without SQLAlchemy's listing of statements or MLflow's advice on further lines."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.splitlines()[0].split())[:300]


def existing_client(address: str) -> MlflowClient:
    """Return a client of a store that is there already; none is made.

    Raises:
        SettingError: there is no such database.
    """
    if address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file():
        raise SettingError(f"{address}: no such database; expected the store that the runs were tracked in")
    return MlflowClient(tracking_uri=address, registry_uri=address)
