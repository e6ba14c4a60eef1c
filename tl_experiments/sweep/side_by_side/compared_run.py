"""A run as it is compared with others: read from its own folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.record import read_values
from tl_experiments.sweep.predictions import Predictions, read_predictions
from tl_experiments.tracking.known_runs import KnownRun, read_run
from tl_experiments.tracking.run_record import CONFIG


@dataclass(frozen=True)
class ComparedRun:
    """A run, finished or not.

    Attributes:
        number: by which tables name it, from 1.
        run: what it is called, how it stands and what it came to.
        config: resolved; empty where it cannot be read.
        predictions: what it said of the test images; None of a run that was not tested.
        problem: why it cannot be compared in full; None where it can.
    """

    number: int
    run: KnownRun
    config: Mapping[str, Any]
    predictions: Predictions | None
    problem: str | None

    @property
    def folder(self) -> Path:
        return self.run.folder

    def fact(self, key: str) -> Any:
        """Return what its result says under a key; None where it says nothing."""
        return self.run.own_result.get(key)

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The group of its configuration."""
        found = self.config.get("dataset")
        return found if isinstance(found, Mapping) else {}


def read_compared(folder: Path, *, number: int) -> ComparedRun:
    """Read a run.

    Raises:
        SettingError: no run began there.
    """
    run, config, problems = read_run(folder), {}, list[str]()
    try:
        config = read_values(folder / CONFIG)
    except ConfigError as error:
        problems.append(f"its settings cannot be compared: {error}")
    finished = run.status == "FINISHED"
    predictions = read_predictions(folder) if finished else None
    if not finished:
        stands = "was stopped by its search" if run.status == "PRUNED" else f"is {run.status}"
        problems.append(f"it {stands}, so that it was not tested")
    elif predictions is None:
        problems.append("its predictions.csv cannot be read, so that only its figures are compared")
    return ComparedRun(number, run, config, predictions, "; ".join(problems) or None)
