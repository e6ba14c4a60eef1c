"""A run that is named by its id in the tracking store, found on this machine's disk."""

from pathlib import Path

from mlflow.exceptions import MlflowException

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.address import absolute_uri
from tl_experiments.tracking.mlflow_store import existing_client


def folder_of_run(run_id: str, *, tracking_uri: str | None = None) -> Path:
    """Return the folder of a run's files.

    Args:
        run_id: MLflow's.
        tracking_uri: where runs are; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        SettingError: there is no such run, or its files are not on this machine.
    """
    address = absolute_uri(tracking_uri)
    try:
        tags = existing_client(address).get_run(run_id).data.tags
    except MlflowException as error:
        raise SettingError(f"{run_id}: no such run in {address}; MLFLOW_TRACKING_URI names another store") from error
    folder = Path(tags.get("tl.run_dir", ""))
    if not folder.is_absolute() or not folder.is_dir():
        raise SettingError(
            f"{run_id}: its files are not at {folder} on this machine; expected the run's folder instead"
        )
    return folder
