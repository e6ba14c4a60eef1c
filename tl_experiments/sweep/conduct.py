"""A sweep from its first job to its report, under one run of the tracking store that says the truth about it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.features import shared_features
from tl_experiments.sweep.launcher import IsolatedLauncher
from tl_experiments.sweep.ledger import PLANNED, RUNNING, Ledger
from tl_experiments.sweep.outcome import Outcome, read_outcomes
from tl_experiments.sweep.parent import describe_plan, parent_ended, write_parent
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.plan_text import plan_lines, spans
from tl_experiments.sweep.planned_configs import GROUP_KEY, group_override
from tl_experiments.sweep.present import record_results, show_results, time_line, write_results
from tl_experiments.sweep.process import LOG
from tl_experiments.sweep.settle import settle_dead, settle_group, settle_rest
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.tracker import Tracker


def show_plan(plan: Plan, folder: Path) -> None:
    """Check what needs heavy libraries to be checked, and print the plan.

    Raises:
        ConfigError: a target does not exist, is not allowed, or refuses its values.
    """
    members = [plan.member(job, folder=folder, parent_run_id=None) for job in plan.jobs]
    for member in members:
        try:
            build.check_buildable(member)
        except ConfigError as error:
            raise ConfigError("\n".join(f"job {member.name}: {line}" for line in str(error).splitlines())) from error
    console = Console()
    for line in plan_lines(plan, folder=folder, shared_features=shared_features(members)):
        console.notice(line)
    if plan.settings["n_jobs"] > 1 and any(build.shares_cpu(member) for member in members):
        console.notice(
            "  note      jobs at the same time share the CPU's cores: runtime.threads=1 keeps them from waiting"
        )


def conduct(
    plan: Plan, folder: Path, *, launcher: Launcher, n_jobs: int, start: float, changed: Sequence[str] = ()
) -> Sequence[JobReturn]:
    """Run what is left of the plan, and compare all runs.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute; claimed.
        launcher: which sees the plan.
        n_jobs: at the same time.
        start: `time.monotonic()` when the command began.
        changed: what is not as it was when the plan was made, for people.

    Returns:
        What Hydra expects, for the jobs that were launched.

    Raises:
        RunFailed: a line for each job that did not finish.
    """
    console = Console()
    left = [outcome.job.index for outcome in read_outcomes(plan, folder) if not outcome.finished]
    if not left and parent_ended(folder):
        console.notice(f"{folder}: this sweep is finished, all {len(plan.jobs)} jobs")
        show_results(console, write_results(plan, folder, link=None), folder)
        return []
    if len(left) < len(plan.jobs):
        console.notice(f"going on with {folder}: {len(plan.jobs) - len(left)} of {len(plan.jobs)} jobs are finished")
    if changed:
        console.notice(f"not as when the sweep was planned, for the jobs that are left: {', '.join(changed)}")
    first = plan.member(plan.jobs[0], folder=folder, parent_run_id=None)
    with build.build_sweep_tracker(first, name=f"sweep {plan.name}", folder=folder) as tracker:
        write_parent(folder, tracker.run_id, ended=False)
        describe_plan(tracker, plan, list(plan_lines(plan, folder=folder, shared_features=())))
        Ledger(folder).append(*({"job": index, "state": PLANNED, "config": plan.jobs[index].digest} for index in left))
        with _concluded(plan, folder, tracker=tracker, console=console):
            returns = _launch(plan, folder, launcher, left=left, console=console)
        outcomes = read_outcomes(plan, folder)
        launched = [outcomes[index] for index in left]
        console.notice(time_line(launched, wall_seconds=time.monotonic() - start, n_jobs=n_jobs))
        _require_finished(outcomes, folder)
    write_parent(folder, tracker.run_id, ended=True)
    return returns


@contextmanager
def _concluded(plan: Plan, folder: Path, *, tracker: Tracker, console: Console) -> Iterator[None]:
    """However the jobs end, or are ended: what they left is recorded, compared and shown."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        console.notice(f"to go on: python run.py -m sweep.resume={folder}")
        raise
    finally:
        settle_rest(plan, folder)
        comparison = write_results(plan, folder, link=tracker.charts_link())
        record_results(tracker, comparison, folder)
        show_results(console, comparison, folder)
        console.where(folders=[folder], ui_command=tracker.ui_command(), link=tracker.charts_link())


def _launch(
    plan: Plan, folder: Path, launcher: Launcher, *, left: Sequence[int], console: Console
) -> Sequence[JobReturn]:
    """Launch the groups that have something left to do; what ends badly without saying so is recorded at once."""
    groups = [number for number, group in enumerate(plan.groups) if set(group) & set(left)]
    if not groups:
        return []
    overrides = [[group_override(group)] for group in groups]

    def on_end(ended_overrides: Sequence[str], ended: JobReturn) -> None:
        [override] = ended_overrides
        group = int(override.removeprefix(f"{GROUP_KEY}="))
        settle_group(plan, folder, group, ended)
        for outcome in (read_outcomes(plan, folder)[index] for index in plan.groups[group]):
            console.notice(f"[{outcome.job.folder}] {_ended_line(outcome)}")

    if isinstance(launcher, IsolatedLauncher):
        launcher.on_end = on_end
        return launcher.launch(overrides, initial_job_idx=0)
    with _launcher_survived(plan, folder):
        returns = launcher.launch(overrides, initial_job_idx=0)
        for group, ended in zip(overrides, returns, strict=True):
            on_end(group, ended)
        return returns
    return []


def _ended_line(outcome: Outcome) -> str:
    if not outcome.finished:
        return f"{outcome.state}: {outcome.cause}"
    result = outcome.result
    figures = f"best val/acc {result['val/acc_best']:.4f}, test/acc {result['test/acc']:.4f}"
    return f"{outcome.state}: {figures}, {result['seconds']:.1f} s"


@contextmanager
def _launcher_survived(plan: Plan, folder: Path) -> Iterator[None]:
    """A job that ends its process may end a launcher that has no isolation; then its other jobs are left for later."""
    try:
        yield
    except (Exception, SystemExit) as error:
        cause = f"the launcher ended by {type(error).__name__}: {error}".split("\n")[0]
        for outcome in read_outcomes(plan, folder):
            if outcome.state == RUNNING:
                settle_dead(plan, folder, outcome, cause=cause, killed=True)


def _require_finished(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Name each job that did not finish; raises RunFailed."""
    lines = []
    for outcome in outcomes:
        if not outcome.finished and outcome.state != PLANNED:
            log = outcome.folder / LOG
            lines.append(
                f"job {outcome.job.name} {outcome.state}: {outcome.cause}" + (f"; log {log}" if log.exists() else "")
            )
    idle = [outcome.job.index for outcome in outcomes if outcome.state == PLANNED]
    if idle:
        lines.append(f"jobs {spans(idle)} were not started")
    if lines:
        summary = f"{sum(not outcome.finished for outcome in outcomes)} of {len(outcomes)} jobs did not finish"
        raise RunFailed("\n".join([summary, *lines, f"to go on: python run.py -m sweep.resume={folder}"]))
