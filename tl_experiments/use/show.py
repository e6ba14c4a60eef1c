"""All that is known of one run, or of a model that has left its run, gathered from its folder."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.record import read_values
from tl_experiments.inference.description import Description
from tl_experiments.inference.saved_model import WEIGHTS
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.run_lock import still_runs
from tl_experiments.tracking.address import absolute_uri, shown
from tl_experiments.tracking.known_runs import KnownRun, read_run
from tl_experiments.tracking.metrics_log import best_epoch, read_metrics
from tl_experiments.tracking.named_run import MODEL, MODEL_FILE, run_folder
from tl_experiments.tracking.params import run_params
from tl_experiments.tracking.run_record import CONFIG, FILE

SCORES = ("val/", "test/", "perf/")
MADE = (
    "num_train_images",
    "num_trained_params",
    "device",
    "processes",
    "host",
    "processor",
    "git_commit",
    "versions",
    "stopped_early",
)
RESUMED = ("UNFINISHED", "KILLED", "FAILED")  # what can be gone on with


@dataclass(frozen=True)
class ShownModel:
    """A trained model.

    Attributes:
        folder: absolute.
        description: what it says of itself.
        weights_bytes: size of its weights on the disk.
    """

    folder: Path
    description: Description
    weights_bytes: int


@dataclass(frozen=True)
class Shown:
    """A run.

    Attributes:
        run: what its files say in short.
        going_on: whether a process is running it; known of jobs of a sweep, and of runs that have a lock.
        num_epochs: that are over.
        scores: of the best epoch and the test; of an unfinished run, of the epochs so far.
        made: of how many images and parameters, on which machine, with which code.
        settings: the params that describe it.
        store: address of its tracking store; None of a run that is not tracked.
        model: None of a run that has left none.
        files: names of what lies in its folder.
        problems: a line for each part that cannot be read.
    """

    run: KnownRun
    going_on: bool
    num_epochs: int
    scores: Mapping[str, Any]
    made: Mapping[str, Any]
    settings: Mapping[str, Any]
    store: str | None
    model: ShownModel | None
    files: tuple[str, ...]
    problems: tuple[str, ...]

    def next_commands(self, named: str) -> tuple[str, ...]:
        """Return what can be done with the run.

        Args:
            named: its folder, as it is typed here.
        """
        if self.model is not None:
            run = shlex.quote(named)
            tracked = (f"tlx register {run} NAME --alias champion", "tlx ui") if self.store else ()
            return (*model_commands(named), f"tlx reproduce {run}", *tracked)
        if self.run.status not in RESUMED or self.going_on:
            return ()
        if self.run.record.sweep_id:
            return (f"python run.py -m sweep.resume={shlex.quote(str(Path(named).parent))}",)
        return (f"python run.py resume={shlex.quote(named)}",)


def model_commands(named: str) -> tuple[str, ...]:
    """Return what can be done with a model that is named so."""
    run = shlex.quote(named)
    return (
        f"tlx predict {run} IMAGES --output predictions.csv",
        f"tlx evaluate {run} FOLDER",
        f"tlx explain {run} IMAGES",
        f"tlx export {run} --format onnx --output model.onnx",
        f"tlx serve {run}",
    )


def show(named: str, *, tracking_uri: str | None) -> Shown | ShownModel:
    """Gather what is known of a run, or of a model that lies in no run's folder.

    Args:
        named: as `run_folder` takes it.
        tracking_uri: where ids are looked for.

    Raises:
        SettingError: there is neither.
    """
    folder = run_folder(named, tracking_uri=tracking_uri)
    if folder.name == MODEL and (folder.parent / FILE).is_file():
        folder = folder.parent
    if not (folder / FILE).is_file() and (folder / MODEL_FILE).is_file():
        return _model(folder)
    return _run(read_run(folder))


def _run(run: KnownRun) -> Shown:
    problems: list[str] = []
    config, settings = {}, {}
    try:
        config = read_values(run.folder / CONFIG)
        settings = run_params(config, run.record.choices)
    except ConfigError as error:
        problems.append(str(error))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problems.append(f"{run.folder / CONFIG}: is not the configuration of a run: {type(error).__name__} {error}")
    model = None
    if (run.folder / MODEL / MODEL_FILE).is_file():
        try:
            model = _model(run.folder / MODEL)
        except SettingError as error:
            problems.append(str(error))
    rows, result = [], run.own_result
    with suppress(OSError, ValueError):
        rows = read_metrics(run.folder / "metrics.jsonl")
    scores = {key: value for key, value in result.items() if key.startswith(SCORES)}
    return Shown(
        run=run,
        going_on=run.status == "UNFINISHED" and still_runs(run.folder, seconds=0),
        num_epochs=len(rows),
        scores=scores or best_epoch(rows),
        made={key: result[key] for key in MADE if result.get(key) is not None},
        settings=settings,
        store=_store(run, config),
        model=model,
        files=tuple(sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("."))),
        problems=tuple(problems),
    )


def _store(run: KnownRun, config: Mapping[str, Any]) -> str | None:
    if run.record.choices["tracking"] == "none":
        return None
    with suppress(SettingError, AttributeError):
        return shown(absolute_uri(config.get("tracking", {}).get("uri")))
    return None


def _model(folder: Path) -> ShownModel:
    weights = folder / WEIGHTS
    description = Description.load(folder)
    if not weights.is_file():
        raise SettingError(f"{weights}: no such file; expected the weights of the model")
    return ShownModel(folder, description, weights.stat().st_size)
