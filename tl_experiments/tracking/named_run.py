"""A run as people name it: by folder, id in the tracking store, the latest or the best. Nothing heavy is imported."""

import re
from pathlib import Path

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.typed_path import typed_path
from tl_experiments.tracking.known_runs import KnownRun, best_of, runs_in

LATEST, BEST = "latest", "best"
OUTPUTS = Path("outputs")
RUNS, SWEEPS = OUTPUTS / "runs", OUTPUTS / "sweeps"
MODEL = "model"  # in a run's folder
MODEL_FILE = "model.json"  # in a model's folder
NAMES = (
    "folder of a run or of its model, MLflow id (of runs in outputs its first 8 digits will do), latest, best, "
    "best:latest (sweep), best:FOLDER or best:EXPERIMENT"
)


def is_run_id(named: str) -> bool:
    """Whether a name is an MLflow run's; a folder that is called so comes first."""
    return re.fullmatch("[0-9a-f]{32}", named) is not None and not Path(named).exists()


def short_path(path: Path) -> str:
    """Return a path as it is typed here: from the working directory, where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def run_folder(named: str, *, tracking_uri: str | None = None) -> Path:
    """Return the absolute folder of a run; that a run began there is for its reader to see.

    Args:
        named: its path; its id in the tracking store, of which the first eight digits will do for a run in `outputs`;
            `latest`: the run in `outputs/runs` that began last; `best`: the finished run in `outputs` with the highest
            val/acc; `best:` and a folder of runs, such as a sweep's, `latest` for the latest sweep, or an MLflow
            experiment's name: the best of these.
        tracking_uri: where ids and experiments are looked for; None is $MLFLOW_TRACKING_URI, else the default store.

    Raises:
        SettingError: there is no such run.
    """
    if named == LATEST:
        return _latest()
    if named == BEST or named.startswith(f"{BEST}:"):
        return _best(named.removeprefix(BEST).removeprefix(":"), tracking_uri=tracking_uri)
    if known := known_by(named):
        return known
    if is_run_id(named):
        from tl_experiments.tracking.find_run import folder_of_run  # noqa: PLC0415 - MLflow is slow to import

        return folder_of_run(named, tracking_uri=tracking_uri)
    return typed_path(named)


def model_folder(named: str, *, tracking_uri: str | None = None) -> Path:
    """Return the absolute folder of a trained model.

    Args:
        named: a run, as `run_folder` takes it, or the model's own folder. A run that is in the tracking store and not
            on this machine is fetched into the cache.
        tracking_uri: as of `run_folder`.

    Raises:
        SettingError: there is no such run, or it has left no model.
    """
    folder = None if is_run_id(named) else run_folder(named, tracking_uri=tracking_uri)
    if folder := folder or known_by(named):
        for place in (folder / MODEL, folder):
            if (place / MODEL_FILE).is_file():
                return place
    if is_run_id(named):
        from tl_experiments.tracking.find_run import model_of_run  # noqa: PLC0415 - MLflow is slow to import

        return model_of_run(named, tracking_uri=tracking_uri)
    told = "it has not finished, or was stopped by its search" if folder and folder.is_dir() else "no such folder"
    raise SettingError(f"{named}: there is no trained model ({told}); expected {NAMES}")


def known_by(digits: str) -> Path | None:
    """Return the folder of the run in `outputs` whose MLflow id is or begins so; MLflow is not asked.

    Raises:
        SettingError: there are several.
    """
    if re.fullmatch("[0-9a-f]{8,32}", digits) is None or Path(digits).exists():
        return None
    found = {run.run_id: run.folder for run in runs_in(OUTPUTS) if run.run_id and run.run_id.startswith(digits)}
    if len(found) > 1:
        raise SettingError(f"{digits}: the MLflow ids of {len(found)} runs begin so; expected more digits")
    return next(iter(found.values()), None)


def _latest() -> Path:
    runs = runs_in(RUNS)
    if not runs:
        raise SettingError(f"latest: no run began in {RUNS.absolute()}; expected its folder instead")
    return runs[-1].folder


def _best(place: str, *, tracking_uri: str | None) -> Path:
    """Return the folder of the best run of a place: all of outputs, a folder, the latest sweep or an experiment."""
    if not place:
        return best_of(runs_in(OUTPUTS), named=f"best: {OUTPUTS.absolute()}").folder
    if place == LATEST:
        return best_of(_latest_sweep(), named="best:latest").folder
    if (folder := typed_path(place)).is_dir():
        return best_of(runs_in(folder), named=f"best:{place}").folder
    from tl_experiments.tracking.find_run import best_of_experiment  # noqa: PLC0415 - as above

    return best_of_experiment(place, tracking_uri=tracking_uri)


def _latest_sweep() -> list[KnownRun]:
    """Return the runs of the sweep in `outputs/sweeps` whose last run began last."""
    sweeps = [runs for folder in SWEEPS.glob("*") if (runs := runs_in(folder))]
    return max(sweeps, key=lambda runs: runs[-1].record.began, default=[])
