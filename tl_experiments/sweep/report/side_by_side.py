"""Runs side by side as a page, readable offline and on its own, with the images on which they disagree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.targets import target_problems
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.files import disk_fault, make_folder, publish_text
from tl_experiments.sweep.report.pictures import UNREADABLE, draw_test_images
from tl_experiments.sweep.report.templates import environment, inline
from tl_experiments.sweep.side_by_side.compared_run import ComparedRun
from tl_experiments.sweep.side_by_side.gather import Disagreement, SideBySide
from tl_experiments.sweep.side_by_side.table import figure

PAGE, TABLE = "compare.html", "disagreements.csv"
MOST_SHOWN = 48


def write_side_by_side(folder: Path, compared: SideBySide) -> tuple[Path, Path]:
    """Write the page, and a table of all images on which runs disagree; returns both.

    Args:
        folder: made when it is missing.
        compared: the runs.

    Raises:
        RunFailed: they cannot be written.
    """
    page, table = folder / PAGE, folder / TABLE
    shown, problem = compared.disagreements[:MOST_SHOWN], None
    pictures: Sequence[str | None] = [None] * len(shown)
    if shown:
        try:
            pictures = _pictures(compared.runs[0], shown)
        except UNREADABLE as error:
            problem = f"The pictures cannot be shown: {str(error).rstrip('.')}."
    text = (
        environment(folder)
        .get_template("side_by_side.html.j2")
        .render(
            compared=compared,
            shown=list(zip(shown, pictures, strict=True)),
            problem=problem,
            figure=figure,
            style=inline("page.css"),
        )
    )
    try:
        make_folder(folder)
        publish_text(table, compared.disagreements_csv())
        publish_text(page, text.encode(errors="replace").decode())  # names of files may hold what is no character
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be written ({disk_fault(error)})") from error
    return page, table


def _pictures(run: ComparedRun, shown: Sequence[Disagreement]) -> list[str]:
    """Read the images from where the first run read them, by the program's own code alone.

    Raises:
        UserError, ConfigError, OSError, ImportError, ValueError: they are not there any more, or are others.
    """
    config = {"dataset": dict(run.dataset), "allow_targets": []}
    if problems := list(target_problems(config)):
        raise ConfigError(problems[0])
    record = run.run.record
    member = Member(config=config, choices=dict(record.choices), folder=run.folder, name=record.name, uid=record.uid)
    if run.predictions is None:
        raise ValueError("the run has left no predictions")
    return draw_test_images(member, said=run.predictions, positions=np.array([item.position for item in shown]))
