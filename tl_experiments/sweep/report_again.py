"""The report of a sweep that is there already, found by its folder or by a run of the tracking store."""

from pathlib import Path

from mlflow.exceptions import MlflowException

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep.folder import find_sweep
from tl_experiments.sweep.parent import read_link, read_parent
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.present import FILES, show_results, write_results
from tl_experiments.tracking.address import absolute_uri, require_own_server
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.find_run import folder_of_sweep
from tl_experiments.tracking.mlflow_store import existing_client


def report_again(folder: Path, *, tracking_uri: str | None) -> None:
    """Write table and report of a sweep anew, put them on its run, and print the table.

    Args:
        folder: of the sweep.
        tracking_uri: where its run is; None is where it was tracked.
    """
    plan = Plan.load(folder).without_own_code()
    console = Console()
    comparison = write_results(plan, folder, link=read_link(folder))
    show_results(console, comparison, folder)
    try:
        _put_on_run(plan, folder, tracking_uri)
    except (MlflowException, SettingError, OSError) as error:
        console.notice(f"note: the run of the sweep keeps its old report: {str(error).splitlines()[0]}")


def folder_of(run_id: str, tracking_uri: str | None) -> Path:
    """Return where the files of a sweep are.

    Args:
        run_id: of the sweep's run, or of one of its jobs'.
        tracking_uri: where runs are; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        ConfigError: it belongs to no sweep.
        SettingError: there is no such run, the store does not answer, or the files are not on this machine.
    """
    folder = folder_of_sweep(run_id, tracking_uri=tracking_uri)
    if folder is None:
        raise ConfigError(f"{run_id}: a run that belongs to no sweep; expected the id of a sweep's run, or of a job's")
    return find_sweep(str(folder), sweeps=Path())


def _put_on_run(plan: Plan, folder: Path, tracking_uri: str | None) -> None:
    """Replace the artifacts of the sweep's run; its status and times stay as they are."""
    run_id = read_parent(folder)
    if run_id is None:
        return
    kept = plan.jobs[0].config["tracking"].get("uri")
    if kept and not tracking_uri:
        require_own_server(kept, source=folder, expected="--tracking-uri {}")
    with existing_client(absolute_uri(tracking_uri or kept)) as client:
        for name in FILES:
            client.log_artifact(run_id, str(folder / name))
