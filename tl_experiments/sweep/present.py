"""What is left of a sweep for people: table, report and winner, on the terminal, in its folder and on its run."""

from collections.abc import Sequence
from pathlib import Path

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.comparison import Comparison, compare
from tl_experiments.sweep.outcome import Outcome, read_outcomes
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.readme_table import markdown_table
from tl_experiments.sweep.report.page import write_report
from tl_experiments.sweep.search.progress import search_sentence, search_steps
from tl_experiments.sweep.search.trials import read_trials
from tl_experiments.sweep.table import print_comparison
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.tracker import Tracker

REPORT = "report.html"
RESULTS = "results.csv"
TABLE = "table.md"
FILES = (RESULTS, TABLE, REPORT)
STUDY = "study.journal"


def write_results(plan: Plan, folder: Path, *, link: str | None) -> Comparison:
    """Write the tables and the report of a sweep into its folder.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
        link: the page that draws the charts of all runs.
    """
    comparison = compare(plan, outcomes=read_outcomes(plan, folder))
    comparison.write_csv(folder / RESULTS)
    publish_text(folder / TABLE, markdown_table(comparison))
    if plan.search is not None:
        _write_study(plan, folder)
    write_report(folder / REPORT, comparison=comparison, plan=plan, link=link)
    return comparison


def _write_study(plan: Plan, folder: Path) -> None:
    """Leave the search for Optuna's own tools, where Optuna is installed."""
    try:
        from tl_experiments.sweep.search.study import write_study  # noqa: PLC0415 - Optuna is optional
    except ConfigError:
        return
    write_study(folder / STUDY, plan.searched, read_trials(plan, folder, number=len(plan.jobs)))


def record_results(tracker: Tracker, comparison: Comparison, folder: Path) -> None:
    """Put tables, report and winner on the sweep's run."""
    for name in FILES:
        tracker.log_file(folder / name)
    winner = comparison.winner
    if winner is None or winner.val_acc is None:
        return
    metrics = {"val/acc_best": winner.val_acc.mean} | ({"test/acc": winner.test_acc.mean} if winner.test_acc else {})
    tracker.log_metrics(metrics, step=0)
    tracker.set_tags({"tl.winner": winner.label})


def show_results(console: Console, comparison: Comparison, folder: Path) -> None:
    """Print the table and where the report is."""
    print_comparison(comparison, console.rich)
    if comparison.is_search:
        console.notice(search_sentence(search_steps(comparison.outcomes)))
    console.notice(f"report  {folder / REPORT}")
    console.notice(f"table   {folder / TABLE}, as Markdown")


def time_line(outcomes: Sequence[Outcome], *, wall_seconds: float, n_jobs: int) -> str:
    """Return one line: what the sweep took beside the work of its jobs.

    Args:
        outcomes: of the jobs that were launched.
        wall_seconds: since the command began.
        n_jobs: at the same time.
    """
    own = sum(outcome.result.get("seconds", 0.0) for outcome in outcomes)
    line = f"time    {wall_seconds:.1f} s, of which {own:.1f} s were the own time of {len(outcomes)} jobs"
    if n_jobs > 1:
        return f"{line}, {own / wall_seconds:.1f} at a time"
    overhead = max(0.0, wall_seconds - own)  # a job that went on brings the seconds of its earlier life
    return f"{line}; the sweep's overhead is {overhead / max(len(outcomes), 1):.1f} s a job"
