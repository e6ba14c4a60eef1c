"""The runs that a folder holds, told by their own files: no tracking store is asked, nothing heavy is imported."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.run_record import FILE, RunRecord

PLACES = ("runs/*", "sweeps/*/*")  # below `outputs`
BEST = "val/acc_best"


@dataclass(frozen=True)
class KnownRun:
    """A run that has begun.

    Attributes:
        folder: absolute.
        record: what it is called.
        result: its `result.json`; empty until it has ended.
    """

    folder: Path
    record: RunRecord
    result: Mapping[str, Any]

    @property
    def status(self) -> str:
        """FINISHED, FAILED, KILLED or PRUNED as its result says; else UNFINISHED, which may be going on."""
        return str(self.own_result.get("status", "UNFINISHED"))

    @property
    def own_result(self) -> Mapping[str, Any]:
        """Its `result.json`; empty where that is of an earlier run in the same folder."""
        return self.result if self.result.get("uid") == self.record.uid else {}

    @property
    def run_id(self) -> str | None:
        """MLflow's; None of one that is not tracked, or has not ended."""
        found = self.own_result.get("run_id")
        return found if isinstance(found, str) else None

    @property
    def val_acc(self) -> float | None:
        """Of the best epoch, in [0, 1]; None of one that has not finished."""
        value = self.result.get(BEST)
        whole = is_finished(self.result, uid=self.record.uid) and self.status == "FINISHED"
        return value if whole and isinstance(value, float) else None


def read_run(folder: Path) -> KnownRun:
    """Return the run in a folder.

    Raises:
        SettingError: no run began there.
    """
    return KnownRun(folder.absolute(), RunRecord.load(folder), read_result(folder))


def runs_in(root: Path) -> list[KnownRun]:
    """Return the runs of `outputs`, of a sweep's folder, or of any folder of runs, that which began first first.

    What cannot be read as a run's record is left out.
    """
    found = sorted(_found(root.absolute()), key=lambda run: run.record.began)
    return list({run.folder: run for run in found}.values())


def _found(root: Path) -> Iterator[KnownRun]:
    for place in ("*", *PLACES):
        for path in root.glob(f"{place}/{FILE}"):
            with suppress(SettingError):
                yield read_run(path.parent)


def best_of(runs: list[KnownRun], *, named: str) -> KnownRun:
    """Return the finished run with the highest val/acc; of equal ones the one that began first.

    Args:
        runs: to choose from.
        named: how the message calls them.

    Raises:
        SettingError: none has finished.
    """
    finished = [run for run in runs if run.val_acc is not None]
    if not finished:
        raise SettingError(f"{named}: no run has finished there; expected a folder of runs, or a run's own folder")
    return max(finished, key=lambda run: run.val_acc or 0.0)
