"""What died without a word beside what is about to start: runs, and sweeps whose own process is gone."""

from contextlib import suppress
from pathlib import Path

from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep import plan
from tl_experiments.sweep.folder import claimed
from tl_experiments.sweep.ledger import RUNNING
from tl_experiments.sweep.outcome import read_outcomes
from tl_experiments.sweep.parent import parent_ended
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.settle import Settler
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.dead_runs import CAUSE, close_dead_runs

RUNS, SWEEPS = "runs", "sweeps"  # below outputs


def close_what_died(folder: Path) -> None:
    """Record the end of runs and sweeps that lie where those of `folder` do and that no process is running.

    Args:
        folder: of the run or sweep that is about to start.
    """
    console, outputs = Console(), folder.parent.parent
    for place in {folder.parent, outputs / RUNS, outputs / SWEEPS}:
        close_dead_runs(place, console=console)
        for path in sorted(place.glob(f"*/{plan.FILE}")):
            if path.parent != folder and not parent_ended(path.parent):
                with suppress(ConfigError, UserError, OSError):
                    _close_sweep(path.parent, console=console)


def _close_sweep(folder: Path, *, console: Console) -> None:
    """Mark the jobs that were running, and the sweep's own run; ConfigError where a process runs the sweep."""
    with claimed(folder):
        dead = Plan.load(folder)
        if all(outcome.state != RUNNING for outcome in read_outcomes(dead, folder)):
            return
        console.notice(f"note: sweep {folder} died; it goes on by: python run.py -m sweep.resume={folder}")
        first = dead.member(dead.jobs[0], folder=folder)
        tracker = build.build_sweep_tracker(first, name=f"sweep {dead.name}", folder=folder)
        with suppress(Terminated), tracker:
            Settler(dead, folder, console).settle_rest(CAUSE)
            raise Terminated(CAUSE)
