"""A run that is named by its id in the tracking store, found on this machine's disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tl_experiments.inference.description import FILE as MODEL_FILE
from tl_experiments.runtime.cache_folder import cache_folder
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.files import MANIFEST, disk_fault, published_folder
from tl_experiments.tracking.address import absolute_uri, holds_secret, shown
from tl_experiments.tracking.mlflow_run import UID
from tl_experiments.tracking.mlflow_store import existing_client
from tl_experiments.tracking.model_files import NAMES as MLFLOWS_OWN
from tl_experiments.tracking.run_record import RunRecord

MODEL = "model"  # in a run's folder and among its artifacts


def folder_of_run(run_id: str, *, tracking_uri: str | None = None) -> Path:
    """Return the folder of a run's files.

    Args:
        run_id: MLflow's.
        tracking_uri: where runs are; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        SettingError: there is no such run, or its files are not on this machine, or another run has its folder now.
    """
    return _own_folder(run_id, tags_of_run(run_id, tracking_uri=tracking_uri))


def folder_of_sweep(run_id: str, *, tracking_uri: str | None = None) -> Path | None:
    """Return the folder of a sweep by its run, or by that of one of its jobs; None where the run is of no sweep.

    Raises:
        SettingError: there is no such run, or its files are not on this machine.
    """
    tags = tags_of_run(run_id, tracking_uri=tracking_uri)
    if parent := tags.get(MLFLOW_PARENT_RUN_ID):
        run_id, tags = parent, tags_of_run(parent, tracking_uri=tracking_uri)
    return _folder(run_id, tags) if tags.get("tl.kind") == "sweep" else None


def model_of_run(run_id: str, *, tracking_uri: str | None = None) -> Path:
    """Return the folder of a run's trained model; it is fetched into the cache where the run is not on this machine.

    Raises:
        SettingError: there is no such run, or it has left no model.
        RunFailed: the cache takes nothing.
    """
    tags = tags_of_run(run_id, tracking_uri=tracking_uri)
    folder = Path(tags.get("tl.run_dir", ""))
    if folder.is_absolute() and _uid_of(folder) == tags.get(UID) and (folder / MODEL / MODEL_FILE).is_file():
        return folder / MODEL
    fetched = cache_folder() / "models" / run_id
    if not fetched.is_dir():
        _fetch(run_id, fetched, tracking_uri=tracking_uri)
    return fetched


def _fetch(run_id: str, place: Path, *, tracking_uri: str | None) -> None:
    address = absolute_uri(tracking_uri)
    none = SettingError(
        f"{run_id}: it has left no model, on this machine or in {shown(address)}; expected a run that has finished"
    )
    try:
        with published_folder(place) as making, TemporaryDirectory() as folder:
            with existing_client(address) as client:
                if MODEL_FILE not in {Path(file.path).name for file in client.list_artifacts(run_id, MODEL)}:
                    raise none
                found = Path(client.download_artifacts(run_id, MODEL, folder))
            for file in found.iterdir():
                if file.is_file() and file.name not in {MANIFEST, *MLFLOWS_OWN}:
                    shutil.move(file, making / file.name)
    except MlflowException as error:
        raise none from (None if holds_secret(address) else error)
    except OSError as error:
        raise RunFailed(f"{place}: the model cannot be kept there ({disk_fault(error)})") from error


def best_of_experiment(name: str, *, tracking_uri: str | None) -> Path:
    """Return the folder of an experiment's finished run with the highest val/acc.

    Raises:
        SettingError: there is no such experiment, none of its runs has finished, or the files are not on this machine.
    """
    address = absolute_uri(tracking_uri)
    with existing_client(address) as client:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise SettingError(
                f"best:{name}: neither a folder nor an experiment of {shown(address)}; expected one of these, or latest"
            )
        runs = client.search_runs(
            [experiment.experiment_id],
            "attributes.status = 'FINISHED' AND tags.`tl.kind` = 'run' AND metrics.`val/acc_best` >= 0",
            order_by=["metrics.`val/acc_best` DESC", "attributes.start_time ASC"],
            max_results=1,
        )
    if not runs:
        raise SettingError(f"best:{name}: no run has finished in this experiment of {shown(address)}")
    return _own_folder(runs[0].info.run_id, runs[0].data.tags)


def tags_of_run(run_id: str, *, tracking_uri: str | None) -> Mapping[str, str]:
    """Return the tags of a run.

    Raises:
        SettingError: there is no such run, or the store does not answer.
    """
    address = absolute_uri(tracking_uri)
    try:
        with existing_client(address) as client:
            return client.get_run(run_id).data.tags
    except MlflowException as error:
        named = f"{run_id}: no such run in {shown(address)}; --tracking-uri or MLFLOW_TRACKING_URI names another store"
        raise SettingError(named) from (None if holds_secret(address) else error)


def _own_folder(run_id: str, tags: Mapping[str, str]) -> Path:
    """Return the folder of a run, which a later one may have taken, or which is another's of the same path here."""
    folder = _folder(run_id, tags)
    if _uid_of(folder) not in (None, tags.get(UID)):
        raise SettingError(f"{run_id}: {folder} is no longer this run's; expected the folder that its files are in now")
    return folder


def _uid_of(folder: Path) -> str | None:
    """Return the uid of the run that a folder is of; None of one where no run began, such as a sweep's."""
    try:
        return RunRecord.load(folder).uid
    except SettingError:
        return None


def _folder(run_id: str, tags: Mapping[str, str]) -> Path:
    folder = Path(tags.get("tl.run_dir", ""))
    if not folder.is_absolute() or not folder.is_dir():
        raise SettingError(
            f"{run_id}: its files are not at {folder} on this machine; expected the run's folder instead"
        )
    return folder
