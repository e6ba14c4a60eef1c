"""A run that is named by its id in the tracking store, found on this machine's disk."""

from collections.abc import Mapping
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.address import absolute_uri, holds_secret, shown
from tl_experiments.tracking.mlflow_store import existing_client


def folder_of_run(run_id: str, *, tracking_uri: str | None = None) -> Path:
    """Return the folder of a run's files.

    Args:
        run_id: MLflow's.
        tracking_uri: where runs are; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        SettingError: there is no such run, or its files are not on this machine.
    """
    return _folder(run_id, tags_of_run(run_id, tracking_uri=tracking_uri))


def folder_of_sweep(run_id: str, *, tracking_uri: str | None = None) -> Path | None:
    """Return the folder of a sweep by its run, or by that of one of its jobs; None where the run is of no sweep.

    Raises:
        SettingError: there is no such run, or its files are not on this machine.
    """
    tags = tags_of_run(run_id, tracking_uri=tracking_uri)
    if parent := tags.get(MLFLOW_PARENT_RUN_ID):
        run_id, tags = parent, tags_of_run(parent, tracking_uri=tracking_uri)
    return _folder(run_id, tags) if tags.get("tl.kind") == "sweep" else None


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


def _folder(run_id: str, tags: Mapping[str, str]) -> Path:
    folder = Path(tags.get("tl.run_dir", ""))
    if not folder.is_absolute() or not folder.is_dir():
        raise SettingError(
            f"{run_id}: its files are not at {folder} on this machine; expected the run's folder instead"
        )
    return folder
