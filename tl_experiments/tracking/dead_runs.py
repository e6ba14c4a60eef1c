"""Runs whose process died without a word: the next start says it for them."""

from contextlib import suppress
from pathlib import Path

from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.run_lock import still_runs
from tl_experiments.tracking import journal
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.last_words import LastWords, own_stores
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.run_record import RunRecord

CAUSE = "its process ended without a word: killed, or out of memory"


def close_dead_run(folder: Path, *, words: LastWords, console: Console) -> None:
    """Record the end of a run that lacks it and that no process is running; jobs of sweeps are their sweep's business.

    Args:
        folder: of the run.
        words: that are told at last.
        console: told of it.
    """
    record = RunRecord.load(folder)
    if record.sweep_id is None:
        _close(folder, record, words=words, console=console)


def close_finished(folder: Path, record: RunRecord) -> None:
    """Close the tracked run of one whose result is whole, but which was killed before it could say so."""
    console = Console()
    with suppress(UserError, OSError), LastWords(own=own_stores(None), console=console) as words:
        _close(folder, record, words=words, console=console)


def _close(folder: Path, record: RunRecord, *, words: LastWords, console: Console) -> None:
    if not _lacks_end(folder, record) or still_runs(folder, seconds=0):
        return
    if not words.hold(folder) or not _lacks_end(folder, record):  # it may have ended a moment ago
        return
    if is_finished(read_result(folder), uid=record.uid):
        words.end(folder, uid=record.uid, status="FINISHED")
        return
    console.notice(
        f"note: run {record.name} is marked as KILLED: {CAUSE}; it goes on by: python run.py resume={folder}"
    )
    error = f"Terminated: {CAUSE}"
    result = {"status": "KILLED", "name": record.name, "uid": record.uid, "run_id": None, "error": error}
    words.end(folder, uid=record.uid, status="KILLED", error=error, result=result)


def _lacks_end(folder: Path, record: RunRecord) -> bool:
    result = read_result(folder)
    return result.get("uid") != record.uid or (is_finished(result, uid=record.uid) and journal.is_open(folder))
