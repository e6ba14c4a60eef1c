"""What died without a word beside what is about to start: runs, and sweeps whose own process is gone.

Whoever wrote what lies there: nothing of it is built, and none of it can keep from starting what is about to start.
"""

from collections.abc import Callable
from pathlib import Path

from tl_experiments.config.errors import ConfigError
from tl_experiments.sweep import ledger, plan
from tl_experiments.sweep.folder import claimed
from tl_experiments.sweep.ledger import FAILED, KILLED, RUNNING, Ledger
from tl_experiments.sweep.outcome import Outcome, own_cause, read_outcomes
from tl_experiments.sweep.parent import parent_ended
from tl_experiments.sweep.plan import Plan
from tl_experiments.tracking import journal, run_record
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.dead_runs import CAUSE, close_dead_run
from tl_experiments.tracking.last_words import LastWords, own_stores
from tl_experiments.tracking.result import is_finished, read_result

PLACES = Path("outputs/runs"), Path("outputs/sweeps")


def close_what_died(folder: Path, *, tracking_uri: str | None = None) -> None:
    """Record the end of runs and sweeps that lie where those of `folder` do and that no process is running.

    Args:
        folder: of the run or sweep that is about to start; it is left as it is.
        tracking_uri: where that is tracked; the stores of others that died are told only if they are the same.
    """
    console, beside = Console(), dict.fromkeys(place.absolute() for place in (folder.parent, *PLACES))
    with LastWords(own=own_stores(tracking_uri), console=console) as words:
        for place in beside:
            for kind, close in ((run_record.FILE, close_dead_run), (plan.FILE, _close_sweep)):
                for path in sorted(place.glob(f"*/{kind}")):
                    if path.parent != folder.absolute():
                        _try(close, path.parent, words=words, console=console)


def _try(close: Callable[..., None], folder: Path, *, words: LastWords, console: Console) -> None:
    try:
        for name in (run_record.FILE, plan.FILE, ledger.FILE):
            if (folder / name).exists() and not (folder / name).is_file():
                raise ValueError(f"{name} is no plain file")  # a FIFO may never end
        close(folder, words=words, console=console)
    except Exception as error:  # whatever is wrong with a neighbour, it ends nothing here
        told = (str(error).splitlines() or [""])[0] or type(error).__name__
        console.notice(f"note: {folder} was left as it is: {told}")


def _close_sweep(folder: Path, *, words: LastWords, console: Console) -> None:
    """Mark the jobs that were running, and the sweep's own run."""
    if parent_ended(folder):
        return
    dead = Plan.load(folder)
    if not _running(dead, folder) and not journal.is_open(folder):
        return
    if not words.enter(claimed(folder), unless=ConfigError):
        return  # a process runs it
    ended = [outcome for outcome in _running(dead, folder) if words.hold(outcome.folder)]
    if not ended and not journal.is_open(folder):
        return
    console.notice(f"note: sweep {folder} died; it goes on by: python run.py -m sweep.resume={folder}")
    for outcome in ended:
        _close_job(outcome, folder, words=words)
    words.end(folder, uid=dead.uid, status=KILLED, error=f"Terminated: {CAUSE}")


def _close_job(outcome: Outcome, folder: Path, *, words: LastWords) -> None:
    """Say how a job ended, unless it has said so itself while its lock was waited for."""
    uid, result = outcome.job.uid, read_result(outcome.folder)
    if is_finished(result, uid=uid):
        return
    own = own_cause(result, uid=uid)
    state, cause = (FAILED, own) if own else (KILLED, CAUSE)
    words.end(outcome.folder, uid=uid, status=state, error=f"{'RunFailed' if own else 'Terminated'}: {cause}")
    Ledger(folder).append({"job": outcome.job.index, "state": state, "cause": cause})


def _running(dead: Plan, folder: Path) -> list[Outcome]:
    return [outcome for outcome in read_outcomes(dead, folder) if outcome.state == RUNNING]
