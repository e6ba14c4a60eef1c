"""Opens an MLflow store: one absolute address, and a schema made once, even when many processes start together."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import InvalidUrlException, MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.importing import importing
from tl_experiments.tracking.address import CREDENTIALS, DATABASES, VARIABLE, holds_secret, redacted, shown
from tl_experiments.tracking.links import SQLITE, is_server
from tl_experiments.tracking.patience import limited

LOCK_SECONDS = 300
BUSY_SECONDS = 60
ANSWER_SECONDS = 15  # for one question of a command that somebody waits for
SHORT = {"Connection refused": "connection refused", "timed out": "no answer in time"}
UNKNOWN, FORBIDDEN = (401, 403)  # of HTTP
WRONG_HOST = "Invalid Host header"  # of MLflow's server


class StoreAway(SettingError):  # noqa: N818 - it names what happened
    """The store may be right and does not answer as one now; the same may be tried later."""

    def __init__(self, address: str, reason: str) -> None:
        """Say where and why."""
        super().__init__(f"tracking.uri={shown(address)} cannot be opened: {reason}")
        self.address = address
        self.reason = reason


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
        StoreAway: a server does not answer, or not as a tracking server of MLflow does.
        SettingError: the store cannot be opened, it refuses the credentials, or its experiment was deleted.
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
        cause = None if holds_secret(address) else error
        if refused := refused_access(error, address):
            raise refused from cause
        is_wrong = isinstance(error, ImportError | InvalidUrlException) or (
            isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError)
        )
        away = StoreAway(address, one_line(error, address))
        raise (SettingError(str(away)) if is_wrong or address.startswith(SQLITE) else away) from cause


def refused_access(error: Exception, address: str) -> SettingError | None:
    """Return what to do about a server that lets nobody in by this name, or not this user; None for other troubles."""
    if not isinstance(error, MlflowException) or error.get_http_status_code() not in (UNKNOWN, FORBIDDEN):
        return None
    if WRONG_HOST in str(error):
        return SettingError(
            f"tracking.uri={shown(address)}: the server does not answer to this name; expected one that its "
            "--allowed-hosts lists"
        )
    return SettingError(
        f"tracking.uri={shown(address)}: the server refuses the credentials; "
        f"set {CREDENTIALS[0]} and {CREDENTIALS[1]}, or {CREDENTIALS[2]}"
    )


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


def _client(address: str) -> MlflowClient:
    """Return a client of a store; a database is asked once before, as MLflow would ask ten times, for 102 s."""
    if address.startswith((SQLITE, *DATABASES)):
        with importing():
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401, PLC0415 - it would be imported by the client
    if address.startswith(DATABASES):
        from mlflow.store.db.utils import create_sqlalchemy_engine  # noqa: PLC0415 - as above

        engine = create_sqlalchemy_engine(address)  # with MLflow's settings, such as certificates
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _connect(address: str, experiment_name: str, *, artifacts: Path | None) -> Store:
    client = _client(address)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        location = artifacts.as_uri() if artifacts else None
        try:
            experiment_id = client.create_experiment(experiment_name, artifact_location=location)
            return Store(address, client, _required(experiment_id))
        except MlflowException:  # on a server another run may have made it in between
            experiment = client.get_experiment_by_name(experiment_name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        secret = holds_secret(address)
        hint = "its server" if is_server(address) else f"the right {VARIABLE}" if secret else f"{VARIABLE}={address}"
        raise SettingError(
            f"tracking.experiment_name={experiment_name} was deleted in {shown(address)}: choose another name, or "
            f"restore it by `mlflow experiments restore --experiment-id {experiment.experiment_id}` with {hint}"
        )
    return Store(address, client, _required(experiment.experiment_id))


def _required(experiment_id: str) -> str:
    """Any object that a server answers looks like an experiment to MLflow's client, one that lacks its id."""
    if not experiment_id:
        raise MlflowException("the answer names no experiment, so that no tracking server of MLflow gave it")
    return experiment_id


def one_line(error: Exception, address: str) -> str:
    """Return what went wrong without secrets, SQLAlchemy's listing of statements, or MLflow's further advice."""
    if isinstance(error, StoreAway):
        return error.reason
    text = str(error).strip() or type(error).__name__
    for told, short in SHORT.items():
        if told in text:
            return short
    return redacted(" ".join(text.splitlines()[0].split()), address)[:300]


@contextmanager
def existing_client(address: str) -> Iterator[MlflowClient]:
    """Yield a client of a store that is there already; none is made, and a server is waited for as a user would.

    Raises:
        StoreAway: it does not answer as a store does.
        SettingError: there is no such database, or it refuses the credentials.
        MlflowException: what was asked for is not there.
    """
    if address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file():
        raise SettingError(f"{address}: no such database; expected the store that the runs were tracked in")
    with limited(ANSWER_SECONDS):
        try:
            yield _client(address)
        except (OSError, ImportError, MlflowException, SQLAlchemyError) as error:
            if getattr(error, "error_code", None) == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            cause = None if holds_secret(address) else error
            raise refused_access(error, address) or StoreAway(address, one_line(error, address)) from cause
