"""Where runs are tracked: one absolute address, whatever the working directory is later."""

import os
from pathlib import Path

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.links import SQLITE

DEFAULT_URI = "sqlite:///outputs/mlflow.db"
SCHEMES = ("http://", "https://", "postgresql", "mysql", "mssql", "databricks")


def absolute_uri(uri: str | None) -> str:
    """Return the address of the store: `uri`, else $MLFLOW_TRACKING_URI, else the default; sqlite paths made absolute.

    Raises:
        SettingError: for an address that MLflow cannot use or no longer takes, such as a folder.
    """
    source = "tracking.uri" if uri else "MLFLOW_TRACKING_URI"
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if uri.startswith(SQLITE) and len(uri) > len(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).absolute())
    if uri.startswith(SCHEMES):
        return uri
    raise SettingError(
        f"{source}={uri}: expected sqlite:///FILE.db or the http(s) address of a tracking server; "
        "MLflow no longer keeps runs in a plain folder"
    )
