"""What a user sees while a run goes on: a live bar on a terminal, plain lines elsewhere, and the results at the end."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rich.console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.engine import records
from tl_experiments.engine.evaluate import LOOKED_AT
from tl_experiments.engine.training_plan import TrainingPlan
from tl_experiments.runtime.signals import obey
from tl_experiments.tracking.plan_table import plan_line, plan_table
from tl_experiments.tracking.run_log import RunResult

FILE_WIDTH = 160  # columns that a table may take where there is no terminal to limit it
RESULT_COLUMNS = {
    "val/acc_best": "best val/acc",
    "val/epoch_best": "at epoch",
    "test/acc": "test/acc",
    "test/loss": "test/loss",
    "perf/seconds": "seconds",
}


class Console:
    """Shows records as they come; `with` ends the live bar whatever happens."""

    def __init__(self, *, console: rich.console.Console | None = None) -> None:
        """Write to standard output, or to `console`."""
        self._console = console or rich.console.Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = FILE_WIDTH
        self._bar: Progress | None = None
        self._title = ""
        self._start: tuple[float, float] | None = None  # seconds and share of the run when the first step came

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close_bar()

    @property
    def rich(self) -> rich.console.Console:
        """Where tables and other drawings are printed."""
        return self._console

    def notice(self, text: str) -> None:
        """Print one line as it is: never wrapped, cut or coloured, so that paths and links can be copied."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def work(self, title: str) -> Callable[[int, int], None]:
        """Return a callback (done, total) that draws a bar on a terminal, and elsewhere says once what goes on.

        It is called between two parts of a long work, which ends there when the command is asked to stop.
        """
        if not self._console.is_terminal:
            self.notice(title)

        def advance(done: int, total: int) -> None:
            obey()
            self._show(title, done, total)
            if done >= total:
                self._close_bar()

        return advance

    def count(self, title: str) -> Callable[[int], None]:
        """Return a callback (images done) for work whose end is not known: it counts on a terminal, as `work` does.

        The bar stays until another work begins or the console is closed.
        """
        if not self._console.is_terminal:
            self.notice(title)
        self._close_bar()  # whose total would stay
        start = time.monotonic()

        def advance(done: int) -> None:
            obey()
            rate = done / max(time.monotonic() - start, 1e-9)
            self._show(title, done, None, details=f"{rate:,.0f} img/s")

        return advance

    def record(self, record: records.Record) -> None:
        """Show one record of the engine: a step moves the bar, an epoch leaves a line."""
        if isinstance(record, records.EpochRecord):
            self.notice(epoch_line(record))
        elif isinstance(record, records.Progress):
            self._step(record)

    def _step(self, record: records.Progress) -> None:
        title = (
            record.stage if record.stage in LOOKED_AT else f"epoch {record.epoch}/{record.num_epochs} {record.stage:<5}"
        )
        fields: dict[str, Any] = {}
        if record.loss is not None and record.acc is not None:  # until the next numbers arrive the last ones stay
            numbers = f"loss {spread(record.loss)}  acc {spread(record.acc)}"
            fields["details"] = f"{numbers}  {record.images_per_second:,.0f} img/s"
        if record.stage != "val":  # an estimate for the run; the test that follows it is timed by itself
            fields["seconds_left"] = self._seconds_left(record) if record.stage == "train" else None
        self._show(title, record.step, record.num_steps, **fields)

    def plan(self, plan: TrainingPlan, *, brief: bool) -> None:
        """Print what is going to be trained: a table, or one line where it is one of many."""
        if brief:
            self.notice(plan_line(plan))
        else:
            self._console.print(plan_table(plan))

    def results(self, rows: Mapping[str, Mapping[str, float]]) -> None:
        """Print the result table, one row for each run name, with the summaries that are there."""
        shown = {key: title for key, title in RESULT_COLUMNS.items() if any(key in row for row in rows.values())}
        table = Table(Column("run", overflow="fold"), *(Column(title, justify="right") for title in shown.values()))
        for name, row in rows.items():
            table.add_row(Text(name), *(_cell(key, row.get(key)) for key in shown))
        self._close_bar()
        self._console.print(table)

    def where(self, *, folders: Sequence[Path], ui_command: str | None, link: str | None) -> None:
        """Print where the files are, the command that opens the tracking pages and the link to the charts."""
        for folder in folders:
            self.notice(f"files   {folder}")
        if ui_command:
            self.notice(f"ui      {ui_command}")
        if link:
            self.notice(f"charts  {link}")

    def end(self, results: Sequence[RunResult]) -> None:
        """Print everything about runs that have ended: their figures, their files, and where to look at them."""
        self.results({result.name: result.summary for result in results})
        first = results[0]
        self.where(folders=[result.folder for result in results], ui_command=first.ui_command, link=first.charts_link)

    def _show(self, title: str, done: int, total: int | None, **fields: Any) -> None:
        """Move the bar, or start it anew for another title; the fields that are not given stay as they are."""
        if not self._console.is_terminal:
            return
        if self._bar is None:
            self._bar = _make_bar(self._console)
            self._bar.add_task(title, total=total, details="", seconds_left=None)
            self._bar.start()
        [task] = self._bar.task_ids
        if self._title not in ("", title):
            self._bar.reset(task, description=title, total=total)
        self._title = title
        self._bar.update(task, completed=done, total=total, **fields)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._title = None, ""

    def _seconds_left(self, record: records.Progress) -> float | None:
        """Return the time that the rest of the run takes at the speed so far; None while nothing is known."""
        share = (record.epoch - 1 + record.step / record.num_steps) / record.num_epochs
        if self._start is None:
            self._start = (time.monotonic(), share)
            return None
        start, first_share = self._start
        done = share - first_share
        return (time.monotonic() - start) / done * (1.0 - share) if done > 0 else None


def epoch_line(record: records.EpochRecord) -> str:
    """Return the one line that an epoch leaves, columns aligned from epoch to epoch."""
    width = len(str(record.num_epochs))
    return (
        f"epoch {record.epoch:>{width}}/{record.num_epochs}"
        f"  train loss {spread(record.train_loss)} acc {spread(record.train_acc)}"
        f"  val loss {spread(record.val_loss)} acc {spread(record.val_acc)}"
        f"  {_settings(record)}"
        f"  {record.images_per_second:,.0f} img/s  {record.seconds:.1f} s"
        f"{'  best' if any(record.improved) else ''}"
    )


def _settings(record: records.EpochRecord) -> str:
    """Return what the epoch was trained with: its rate, or what it tried."""
    tried = "  ".join(f"{name} {value:.4g}" for name, value in record.candidate.items())
    return tried or f"lr {spread(record.lr, '.2e')}"


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """Return one value, or the lowest and highest of several members; a diverged member shows as nan.

    >>> spread((0.5,))
    '0.5000'
    >>> spread((0.25, 0.5, 0.75))
    '0.2500–0.7500'
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "nan"
    low, high = format(min(known), form), format(max(known), form)
    text = low if low == high else f"{low}–{high}"
    return text if len(known) == len(values) else f"{text} and nan"


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key == "val/epoch_best":
        return f"{value:.0f}"
    return f"{value:.1f}" if key == "perf/seconds" else f"{value:.4f}"


class _Steps(ProgressColumn):
    """What is done, of how much where that is known."""

    def render(self, task: Task) -> str:
        return f"{task.completed:,.0f}" + ("" if task.total is None else f"/{task.total:,.0f}")


class _Left(ProgressColumn):
    """Time to the end of the run, or of the work that the bar shows where no run is going on."""

    def render(self, task: Task) -> str:
        seconds = task.fields["seconds_left"]
        if seconds is None:
            seconds = task.time_remaining
        return "" if seconds is None else f"{clock(seconds)} left"


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _make_bar(console: rich.console.Console) -> Progress:
    """Return a bar that leaves nothing behind when it ends."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Steps(),
        TextColumn("{task.fields[details]}", markup=False),
        _Left(),
        console=console,
        transient=True,
        refresh_per_second=5,
    )
