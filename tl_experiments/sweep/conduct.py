"""A sweep from its first job to its report, under one run of the tracking store that says the truth about it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated
from tl_experiments.sweep.causes import cause_of
from tl_experiments.sweep.dead import close_what_died
from tl_experiments.sweep.grouping import group_jobs
from tl_experiments.sweep.ledger import PLANNED, PRUNED, Ledger
from tl_experiments.sweep.outcome import Outcome, read_epochs, read_outcomes
from tl_experiments.sweep.parent import describe_plan, parent_ended, read_link, write_parent
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.plan_text import plan_lines, spans
from tl_experiments.sweep.planned_configs import group_override
from tl_experiments.sweep.present import record_results, show_results, time_line, write_results
from tl_experiments.sweep.process import LOG
from tl_experiments.sweep.settle import Settler
from tl_experiments.sweep.told import ToldLauncher
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.tracker import Tracker

Extend = Callable[[Plan], Plan | None]


def settle_plan(plan: Plan, folder: Path) -> Plan:
    """Check and decide what needs heavy libraries, print the plan and return it with its groups.

    Raises:
        ConfigError: a target does not exist, is not allowed, or refuses its values.
    """
    members = [plan.member(job, folder=folder) for job in plan.jobs]
    if plan.search is None:  # else they were checked one by one, and each may be stopped alone
        require_buildable(members)
        plan = replace(plan, groups=group_jobs(members, max_heads=plan.settings["max_heads"]))
    console = Console()
    for line in plan_lines(plan, folder=folder):
        console.notice(line)
    if plan.settings["n_jobs"] > 1 and any(build.shares_cpu(member) for member in members):
        console.notice(
            "  note      jobs at the same time share the CPU's cores: runtime.threads=1 keeps them from waiting"
        )
    return plan


def require_buildable(members: Sequence[Member]) -> None:
    """See that all of them can be built; raises ConfigError, a line for each problem of the first that cannot."""
    for member in members:
        try:
            build.check_buildable(member)
        except ConfigError as error:
            raise ConfigError("\n".join(f"job {member.name}: {line}" for line in str(error).splitlines())) from error


def show_rest(plan: Plan, folder: Path) -> None:
    """Print what is left of a plan that was begun."""
    console, outcomes = Console(), read_outcomes(plan, folder)
    left = [outcome.job.index for outcome in outcomes if not outcome.over]
    _announce(plan, folder, left=left, changed=(), console=console)
    for outcome in outcomes:
        console.notice(f"  {outcome.state:<10}{outcome.job.name}")


def conduct(
    plan: Plan,
    folder: Path,
    *,
    launcher: Launcher,
    n_jobs: int,
    start: float,
    changed: Sequence[str] = (),
    extend: Extend | None = None,
) -> Sequence[JobReturn]:
    """Run what is left of the plan, and of those that it becomes, and compare all runs.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute; claimed.
        launcher: which sees the plan.
        n_jobs: at the same time.
        start: `time.monotonic()` when the command began.
        changed: what is not as it was when the plan was made, for people.
        extend: of a search: plan whose jobs have ended → longer one, or None at the end.

    Returns:
        What Hydra expects, for the jobs that were launched.

    Raises:
        RunFailed: a line for each job that did not finish.
    """
    console = Console()
    close_what_died(folder, tracking_uri=plan.jobs[0].config["tracking"].get("uri"))
    outcomes = read_outcomes(plan, folder)
    left = [outcome.job.index for outcome in outcomes if not outcome.over]
    _announce(plan, folder, left=left, changed=changed, console=console)
    if not left and plan.is_whole and parent_ended(folder):
        show_results(console, write_results(plan, folder, link=read_link(folder)), folder)
        return []
    first = plan.member(plan.jobs[0], folder=folder)
    settler = Settler(plan, folder, console)
    with build.build_sweep_tracker(first, name=f"sweep {plan.name}", folder=folder) as tracker:
        write_parent(folder, tracker.run_id, link=tracker.charts_link(), ended=False)
        describe_plan(tracker, plan, list(plan_lines(plan, folder=folder)))
        settler.settle_rest("the sweep was killed")
        Ledger(folder).append(*({"job": index, "state": PLANNED, "config": plan.jobs[index].digest} for index in left))
        with _concluded(settler, tracker=tracker):
            returns, trouble = _launch(settler, launcher, left=left)
            while extend is not None and trouble is None and (longer := extend(plan)) is not None:
                added, plan = range(len(plan.jobs), len(longer.jobs)), longer
                left, settler = [*left, *added], replace(settler, plan=plan)
                Ledger(folder).append(*({"job": i, "state": PLANNED, "config": plan.jobs[i].digest} for i in added))
                more, trouble = _launch(settler, launcher, left=added)
                returns = [*returns, *more]
        plan = Plan.load(folder)  # of a search, as long as it has become
        outcomes = read_outcomes(plan, folder)
        launched = [outcomes[index] for index in left]
        console.notice(time_line(launched, wall_seconds=time.monotonic() - start, n_jobs=n_jobs))
        _require_finished(plan, outcomes, folder, trouble)
    write_parent(folder, tracker.run_id, link=tracker.charts_link(), ended=True)
    return returns


def _announce(plan: Plan, folder: Path, *, left: Sequence[int], changed: Sequence[str], console: Console) -> None:
    """Say what is done already and what is left."""
    if not left and plan.is_whole:
        console.notice(f"{folder}: this sweep is finished, all {len(plan.jobs)} jobs")
    elif len(left) < len(plan.jobs):
        console.notice(f"going on with {folder}: {len(plan.jobs) - len(left)} of {len(plan.jobs)} jobs are finished")
    if left and changed:
        console.notice(f"not as when the sweep was planned, for the jobs that are left: {', '.join(changed)}")


@contextmanager
def _concluded(settler: Settler, *, tracker: Tracker) -> Iterator[None]:
    """However the jobs end, or are ended: what they left is recorded, compared and shown."""
    folder, console = settler.folder, settler.console
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        console.notice(f"to go on: python run.py -m sweep.resume={folder}")
        raise
    finally:
        settler = replace(settler, plan=Plan.load(folder))  # of a search, as long as it has become
        settler.settle_rest("the sweep was ended")
        comparison = write_results(settler.plan, folder, link=tracker.charts_link())
        try:
            record_results(tracker, comparison, folder)
        except Exception as error:  # the results are in the folder, whatever became of the store
            console.notice(f"note: the run of the sweep lacks its results: {cause_of(error)}")
        show_results(console, comparison, folder)
        console.where(folders=[folder], ui_command=tracker.ui_command(), link=tracker.charts_link())


def _launch(settler: Settler, launcher: Launcher, *, left: Sequence[int]) -> tuple[Sequence[JobReturn], str | None]:
    """Launch the groups that have something left to do; what ends badly without saying so is recorded at once.

    Returns:
        What Hydra expects, and why the launcher itself ended, if it did.
    """
    plan, folder = settler.plan, settler.folder
    due = set(left)
    groups = [number for number, group in enumerate(plan.groups) if due & set(group)]

    def on_end(group: int, ended: JobReturn) -> None:
        settler.settle_group(group, ended)
        for outcome in read_outcomes(plan, folder, of=[index for index in plan.groups[group] if index in due]):
            if outcome.state != PLANNED:
                settler.console.notice(f"[{outcome.job.folder}] {_ended_line(outcome)}")

    if isinstance(launcher, ToldLauncher):
        launcher.on_end = lambda position, ended: on_end(groups[position], ended)
    if not groups:
        return [], None
    try:
        returns = launcher.launch([[group_override(group)] for group in groups], initial_job_idx=0)
    except (Exception, SystemExit) as error:  # a job that ends its process may end a launcher that has no isolation
        if isinstance(launcher, ToldLauncher) and not isinstance(error, RunFailed):
            raise
        cause = f"the launcher ended: {cause_of(error)}"
        settler.settle_rest(cause)
        return [], cause
    if not isinstance(launcher, ToldLauncher):
        for group, ended in zip(groups, returns, strict=True):
            on_end(group, ended)
    return returns, None


def _ended_line(outcome: Outcome) -> str:
    result = outcome.result
    if outcome.state == PRUNED:
        trained, best = len(read_epochs(outcome)), result.get("val/acc_best", math.nan)
        epochs = f"after {trained} of {result['num_epochs']} epochs"
        return f"{outcome.state} {epochs}: best val/acc {best:.4f}, {result['seconds']:.1f} s"
    if not outcome.finished:
        return f"{outcome.state}: {outcome.cause}"
    figures = f"best val/acc {result['val/acc_best']:.4f}, test/acc {result['test/acc']:.4f}"
    return f"{outcome.state}: {figures}, {result['seconds']:.1f} s"


def _require_finished(plan: Plan, outcomes: Sequence[Outcome], folder: Path, trouble: str | None) -> None:
    """Name each job that did not finish, and what befell the launcher; raises RunFailed."""
    lines = [trouble] if trouble else []
    for outcome in outcomes:
        if not outcome.over and outcome.state != PLANNED:
            log = folder / plan.host(outcome.job).folder / LOG
            where = f"; log {log}" if log.exists() else ""
            cause = outcome.cause or "it goes on, or its end is not recorded yet"
            lines.append(f"job {outcome.job.name} {outcome.state}: {cause}{where}")
    idle = [outcome.job.index for outcome in outcomes if outcome.state == PLANNED]
    if idle:
        lines.append(f"jobs {spans(idle)} were not started")
    if lines:
        summary = f"{sum(not outcome.over for outcome in outcomes)} of {len(outcomes)} jobs did not finish"
        raise RunFailed("\n".join([summary, *lines, f"to go on: python run.py -m sweep.resume={folder}"]))
