"""Runs side by side on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.sweep.side_by_side.gather import Answer, SideBySide
from tl_experiments.tracking.named_run import short_path

FORMS = {"perf/seconds": ".1f", "val/epoch_best": "d", "num_trained_params": ",d", "num_train_images": ",d"}


def print_side_by_side(compared: SideBySide, console: rich.console.Console, *, most_shown: int) -> None:
    """Print what tells runs apart; values are text, never markup.

    Args:
        compared: the runs.
        console: where.
        most_shown: images on which they disagree.
    """
    console.print(_runs(compared))
    numbers = [str(run.number) for run in compared.runs]
    if compared.settings:
        console.print(_rows("settings that differ", numbers, compared.settings))
    else:
        _line(console, compared.same_settings_sentence())
    console.print(
        _rows("figures", numbers, {key: [figure(key, value) for value in row] for key, row in compared.figures.items()})
    )
    for run in compared.runs:
        if run.problem:
            _line(console, f"note: run {run.number}: {run.problem}")
    for line in (*(f"note: {note}" for note in compared.notes), *compared.verdicts(), compared.disagreement_sentence()):
        _line(console, line)
    if compared.disagreements and most_shown:
        console.print(_disagreements(compared, most_shown))


def figure(key: str, value: Any) -> str:
    """Return a metric as tables show it; what is none as a dash."""
    if not isinstance(value, int | float):
        return "–"
    return format(value, FORMS.get(key, ".4f"))


def _runs(compared: SideBySide) -> Table:
    folder = Column("folder", overflow="fold")
    table = Table(Column("run", justify="right"), Column("name", overflow="fold"), "status", "MLflow id", folder)
    for item in compared.runs:
        run = item.run
        cells = (str(item.number), run.record.name, run.status, run.run_id or "–", short_path(run.folder))
        table.add_row(*map(Text, cells))
    return table


def _rows(title: str, numbers: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title, *(Column(number, justify="right", overflow="fold") for number in numbers))
    for key, row in rows.items():
        table.add_row(*map(Text, (key, *row)))
    return table


def _disagreements(compared: SideBySide, most_shown: int) -> Table:
    """The images on which the runs disagree, the surest first."""
    numbers = (Column(str(run.number), overflow="fold") for run in compared.answering)
    table = Table(Column("they disagree on", overflow="fold"), "class", *numbers)
    for item in compared.disagreements[:most_shown]:
        table.add_row(Text(item.image), Text(item.true), *(_answer(answer) for answer in item.answers))
    return table


def _answer(answer: Answer) -> Text:
    mark, style = ("✓", "green") if answer.right else ("✗", "red")
    return Text(f"{mark} {answer.predicted} {answer.confidence:.0%}", style=style)


def _line(console: rich.console.Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
