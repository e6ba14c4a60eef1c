"""MLflow's registry of models: a run's model gets a name, a version and an alias, under which others find it."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.tracking.artifact_utils import get_artifact_uri
from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

from tl_experiments.inference.description import FILE as DESCRIPTION
from tl_experiments.inference.description import Description
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import absolute_uri, holds_secret, shown, usable_uri
from tl_experiments.tracking.journal import Journal
from tl_experiments.tracking.mlflow_run import UID
from tl_experiments.tracking.mlflow_store import existing_client, one_line
from tl_experiments.tracking.model_files import MODEL_FILE as MLMODEL
from tl_experiments.tracking.named_run import MODEL, MODEL_FILE, is_run_id, known_by, run_folder
from tl_experiments.tracking.sync import kept_address

SCORES = ("val/acc_best", "test/acc")  # of the run, said of the version as well


@dataclass(frozen=True)
class Registered:
    """What the registry knows of a run's model.

    Attributes:
        name: of the model.
        version: of the name that is this run's.
        is_new: whether it was not there before.
        moved_from: version that the alias was of until now; None where it was of none, or of this one.
    """

    name: str
    version: str
    is_new: bool
    moved_from: str | None


def register(named: str, name: str, *, alias: str | None, tracking_uri: str | None) -> Registered:
    """Make a run's model a version of a registered model, which is made as well where it is missing.

    Args:
        named: the run, as `run_folder` takes it; its id alone need not be on this machine.
        name: of the registered model.
        alias: that the version gets, taken from another version that has it.
        tracking_uri: of the store; None is where the run was tracked, for an id that is not of a run in `outputs`
            $MLFLOW_TRACKING_URI or the default.

    Raises:
        SettingError: the store has no such run or no model of it, or MLflow does not take the name or the alias.
    """
    if is_run_id(named) and known_by(named) is None:
        address, source = absolute_uri(tracking_uri), None
    else:
        source = _journal(run_folder(named, tracking_uri=tracking_uri))
        address = usable_uri(tracking_uri, source="--tracking-uri") if tracking_uri else kept_address(source)
    with existing_client(address) as client:
        run = _run(client, named, address) if source is None else _run_of(client, source, address)
        weights_sha256 = _weights(client, run, named=named, address=address, folder=source.folder if source else None)
        with _named_well(address):
            if alias is not None:  # before anything is made, which would stay where the alias is refused at last
                _validate_model_alias_name(alias)
                _validate_model_alias_name_reserved(alias)
            before = _aliases(client, name)
            known = client.search_model_versions(f"run_id = '{run.info.run_id}'")
            own = [found for found in known if found.name == name]
            version = own[0] if own else _create_version(client, run, name, address, weights_sha256)
            number = str(version.version)
            if alias is not None:
                client.set_registered_model_alias(name, alias, number)
    moved_from = before.get(alias) if alias else None
    return Registered(name, number, is_new=not own, moved_from=moved_from if moved_from != number else None)


def _journal(folder: Path) -> Journal:
    """Return what is kept of a run for its store; the folder may be that of its model."""
    folder = folder.parent if folder.name == MODEL and (folder / MODEL_FILE).is_file() else folder
    if not folder.is_dir():
        raise SettingError(f"{folder}: no such folder; expected a run")
    if not (folder / journal.FILE).is_file():
        raise SettingError(f"{folder}: the run was not tracked in MLflow; expected one of tracking=mlflow")
    return Journal.read(folder)


def _run(client: MlflowClient, run_id: str, address: str) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise SettingError(
            f"{run_id}: no such run in {shown(address)}; --tracking-uri or MLFLOW_TRACKING_URI names another store"
        ) from (None if holds_secret(address) else error)
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise SettingError(
            f"{run_id}: was deleted in {shown(address)}; restore it by `mlflow runs restore --run-id {run_id}`"
        )
    return run


def _run_of(client: MlflowClient, source: Journal, address: str) -> Run:
    """Return the run that a journal was delivered to: of several with its uid the oldest."""
    experiment = client.get_experiment_by_name(source.header.experiment_name)
    found: list[Run] = []
    if experiment is not None:
        found = list(client.search_runs([experiment.experiment_id], f"tags.`{UID}` = '{source.header.uid}'"))
    if not found:
        elsewhere = "" if address == source.header.store else f" --tracking-uri {shlex.quote(shown(address))}"
        how = _sync(source.folder) + elsewhere
        raise SettingError(f"{source.folder}: {shown(address)} has no such run; deliver it by: {how}")
    return min(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _weights(client: MlflowClient, run: Run, *, named: str, address: str, folder: Path | None) -> str:
    """Return the digest of the weights that the store has, where all of MLflow's model is there."""
    files = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, MODEL)}
    if not {MLMODEL, MODEL_FILE} <= files:
        how = f"a finished run that was delivered, by: {_sync(folder)}" if folder else "one that has finished"
        raise SettingError(f"{named}: {shown(address)} has no MLflow model of it; expected {how}")
    with TemporaryDirectory() as place:
        path = Path(client.download_artifacts(run.info.run_id, f"{MODEL}/{DESCRIPTION}", place))
        return Description.load(path.parent).weights_sha256


def _aliases(client: MlflowClient, name: str) -> Mapping[str, str]:
    """Make a registered model where it is missing; returns which versions its aliases are of."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    return {key: str(value) for key, value in client.get_registered_model(name).aliases.items()}


def _create_version(client: MlflowClient, run: Run, name: str, address: str, weights_sha256: str) -> ModelVersion:
    scores = {key: f"{run.data.metrics[key]:.6g}" for key in SCORES if key in run.data.metrics}
    return client.create_model_version(
        name,
        get_artifact_uri(run.info.run_id, MODEL, tracking_uri=address),
        run.info.run_id,
        tags={"weights_sha256": weights_sha256, **scores},
    )


@contextmanager
def _named_well(address: str) -> Iterator[None]:
    """Say what MLflow has against a name or an alias."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(INVALID_PARAMETER_VALUE):
            raise
        raise SettingError(f"{shown(address)} refuses it: {one_line(error, address)}") from error


def _sync(folder: Path) -> str:
    return f"tlx sync {shlex.quote(str(folder))}"
