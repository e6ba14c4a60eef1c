"""A run as people name it: its folder, its id in the tracking store, or the latest. Nothing heavy is imported."""

import re
from contextlib import suppress
from pathlib import Path

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.run_record import FILE, RunRecord

LATEST = "latest"
RUNS = Path("outputs/runs")


def is_run_id(named: str) -> bool:
    """Whether a name is an MLflow run's; a folder that is called so comes first."""
    return re.fullmatch("[0-9a-f]{32}", named) is not None and not Path(named).exists()


def run_folder(named: str, *, tracking_uri: str | None = None) -> Path:
    """Return the absolute folder of a run; that a run began there is for its reader to see.

    Args:
        named: its path, its id in the tracking store, or `latest`: the run in `outputs/runs` that began last.
        tracking_uri: where ids are looked for; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        SettingError: there is no such run.
    """
    if named == LATEST:
        return _latest()
    if is_run_id(named):
        from tl_experiments.tracking.find_run import folder_of_run  # noqa: PLC0415 - MLflow is slow to import

        return folder_of_run(named, tracking_uri=tracking_uri)
    return Path(named).expanduser().absolute()


def _latest() -> Path:
    """Return the run that began last; what is no run's folder, or cannot be read, is none."""
    began: dict[str, Path] = {}
    for path in RUNS.glob(f"*/{FILE}"):
        with suppress(SettingError):
            began[RunRecord.load(path.parent).began] = path.parent
    if not began:
        raise SettingError(f"latest: no run began in {RUNS.absolute()}; expected its folder instead")
    return began[max(began)].absolute()
