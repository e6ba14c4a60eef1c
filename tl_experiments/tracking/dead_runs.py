"""Runs whose process died without a word: the next start says it for them."""

import json
from contextlib import suppress
from pathlib import Path

from tl_experiments.runtime.errors import SettingError, UserError
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.run_lock import still_runs
from tl_experiments.runtime.signals import Terminated
from tl_experiments.tracking import journal, run_record
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.journal import Journal
from tl_experiments.tracking.mlflow_tracker import MlflowTracker
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.run_record import RunRecord

CAUSE = "its process ended without a word: killed, or out of memory"


def close_dead_runs(runs: Path, *, console: Console) -> None:
    """Record the end of each run in a folder of runs that lacks it and that no process is running.

    Args:
        runs: its folders are looked at, not those below; jobs of sweeps are their sweep's business.
        console: told of each.
    """
    for path in sorted(runs.glob(f"*/{run_record.FILE}")):
        folder = path.parent
        with suppress(SettingError, OSError):
            record = RunRecord.load(folder)
            if record.sweep_id is not None:
                continue
            if read_result(folder).get("uid") != record.uid:
                _close(folder, record, console=console)
            else:
                close_finished(folder, record)


def close_finished(folder: Path, record: RunRecord) -> None:
    """Close the tracked run of one whose result is whole, but which was killed before it could say so."""
    finished = is_finished(read_result(folder), uid=record.uid) and journal.is_open(folder)
    if finished and not still_runs(folder, seconds=0) and (tracker := _tracker(folder)) is not None:
        with suppress(UserError), tracker:
            tracker.log_file(folder / "result.json")


def _close(folder: Path, record: RunRecord, *, console: Console) -> None:
    if still_runs(folder, seconds=0):
        return
    console.notice(
        f"note: run {record.name} is marked as KILLED: {CAUSE}; it goes on by: python run.py resume={folder}"
    )
    tracker = _tracker(folder)
    if tracker is not None:
        error = Terminated(CAUSE)
        with suppress(Terminated, UserError), tracker:
            raise error
    result = {"status": "KILLED", "name": record.name, "uid": record.uid, "run_id": tracker and tracker.run_id}
    publish_text(folder / "result.json", json.dumps({**result, "error": f"Terminated: {CAUSE}"}, indent=2) + "\n")


def _tracker(folder: Path) -> MlflowTracker | None:
    """Return what goes on with the tracked run; None where nothing was tracked."""
    if not (folder / journal.FILE).exists():
        return None
    with suppress(UserError):
        header = Journal.read(folder).header
        return MlflowTracker(
            uri=header.store,
            experiment_name=header.experiment_name,
            run_name=header.run_name,
            uid=header.uid,
            parent_uid=header.parent_uid,
            folder=folder,
            tags=header.tags,
        )
    return None
