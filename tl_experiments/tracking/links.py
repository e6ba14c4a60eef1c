"""The way from a finished run to MLflow's pages: the command that starts them, the link that shows the charts."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

SQLITE = "sqlite:///"
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens unless told otherwise


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def ui_command(uri: str) -> str | None:
    """Return the command that opens the store at `uri`, short where the store lies under the working directory.

    A tracking server shows its own pages, so that there is no command for it.
    """
    if is_server(uri):
        return None
    path = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and path.is_relative_to(Path.cwd()):
        uri = SQLITE + path.relative_to(Path.cwd()).as_posix()
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def sweep_or_run_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that select all runs of this run's sweep, or this run where there is no sweep."""
    if "tl.sweep_id" in tags:
        return {"tl.sweep_id": tags["tl.sweep_id"], "tl.kind": "run"}
    return {"tl.uid": tags["tl.uid"]}


def charts_link(experiment_id: str, *, tags: Mapping[str, str], server: str = LOCAL_UI) -> str:
    """Return the page that draws the charts of all runs that carry `tags`, best val/acc first.

    Sorting by a metric is what makes MLflow lay out the children of a parent run; by default it collapses them.
    """
    search = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
        f"&searchFilter={quote(search, safe='')}&orderByKey={quote('metrics.`val/acc_best`', safe='')}&orderByAsc=false"
    )
