"""The comparison of a sweep on a terminal: the ranked table, what did not finish, the winner and what it proves."""

from collections.abc import Sequence

import rich.console
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.sweep.comparison import Comparison
from tl_experiments.sweep.search.progress import search_steps
from tl_experiments.sweep.statistics import Spread

PRUNED_COLUMNS = ("epochs", "val/acc so far")
MOST_COLUMNS = 5  # keys that get a column each; more of them share one


def print_comparison(comparison: Comparison, console: rich.console.Console) -> None:
    """Print everything that a person wants to know when a sweep has ended; values are text, never markup."""
    if comparison.rows:
        console.print(_ranking(comparison))
    if comparison.pruned:
        console.print(_pruned(comparison))
    if comparison.unfinished:
        console.print(_unfinished(comparison))
    for line in (comparison.winner_sentence(), comparison.verdict.sentence, *_notes(comparison)):
        console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def _notes(comparison: Comparison) -> Sequence[str]:
    return [f"note: {note}" for note in comparison.notes]


def _ranking(comparison: Comparison) -> Table:
    """One line for each configuration, best first."""
    keys = comparison.keys if 0 < len(comparison.keys) <= MOST_COLUMNS else ()
    columns = [Column(Text(key), overflow="fold") for key in keys or ("configuration",)]
    costs = comparison.params_differ
    repeated = any(len(row.outcomes) > 1 for row in comparison.rows)
    numbers = [*(["n"] if repeated else []), "val/acc", "test/acc", "seconds", *(["params"] if costs else [])]
    table = Table(
        Column("rank", justify="right"),
        *columns,
        *(Column(title, justify="right", no_wrap=True) for title in numbers),
    )
    for row in comparison.rows:
        names = [row.shown(key) for key in keys] or [row.label]
        count = [str(len(row.outcomes))] if repeated else []
        figures = [_cell(row.val_acc), _cell(row.test_acc), _cell(row.seconds, ".1f")]
        params = [f"{row.num_trained_params:,d}" if row.num_trained_params is not None else "–"] if costs else []
        table.add_row(*(Text(cell) for cell in (str(row.rank), *names, *count, *figures, *params)))
    return table


def _cell(spread: Spread | None, form: str = ".4f") -> str:
    return spread.text(form) if spread else "–"


def _pruned(comparison: Comparison) -> Table:
    """What a search has stopped, untested."""
    table = Table(Column("pruned", overflow="fold"), *(Column(title, justify="right") for title in PRUNED_COLUMNS))
    for step in search_steps(comparison.pruned):
        figure = "–" if step.val_acc is None else f"{step.val_acc:.4f}"
        table.add_row(Text(step.outcome.job.name), f"{step.num_trained} of {step.num_epochs}", figure)
    return table


def _unfinished(comparison: Comparison) -> Table:
    table = Table(Column("not finished", overflow="fold"), "state", Column("cause", overflow="fold"))
    for outcome in comparison.unfinished:
        table.add_row(*(Text(cell) for cell in (outcome.job.name, outcome.state, outcome.cause or "")))
    return table
