"""A plan as people read it: a table with a row for each phase."""

import io
import json
from pathlib import Path

import rich.console
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.engine.training_plan import PhasePlan, TrainingPlan
from tl_experiments.runtime.files import publish_text

NAMES_SHOWN = 3
WIDTH = 120


def plan_table(plan: TrainingPlan) -> Table:
    """Draw a plan; where members or parts have several rates, the lowest and the highest are shown."""
    right = [Column(title, justify="right", no_wrap=True) for title in ("parameters", "peak lr", "epochs")]
    table = Table(Column("phase"), Column("trains", overflow="fold"), *right, Column("BatchNorm"))
    for phase in plan.phases:
        table.add_row(*(Text(cell) for cell in _cells(plan, phase)))
    return table


def _cells(plan: TrainingPlan, phase: PhasePlan) -> tuple[str, ...]:
    share = f"{phase.num_params:,} of {plan.num_params:,}"
    return phase.name, _names(phase.part_names), share, _peaks(plan, phase), _epochs(phase), phase.batchnorm


def _epochs(phase: PhasePlan) -> str:
    first, last = phase.first_epoch, phase.last_epoch
    return str(first) if first == last else f"{first}–{last}"


def _names(names: tuple[str, ...]) -> str:
    """Name all parts, or the first, the last of the backbone's and whatever is not the backbone's."""
    stages = [name for name in names if name.startswith("backbone.")]
    if len(names) <= NAMES_SHOWN or not stages:
        return ", ".join(names)
    others = [name for name in names if name not in stages]
    return ", ".join([f"{stages[0]} … {stages[-1].removeprefix('backbone.')}", *others])


def _peaks(plan: TrainingPlan, phase: PhasePlan) -> str:
    peaks = plan.peaks(phase)
    if peaks is None:
        return "solved" if not phase.by_steps else "–"
    low, high = (f"{peak:.3g}" for peak in peaks)
    return low if low == high else f"{low}–{high}"


def plan_line(plan: TrainingPlan) -> str:
    """Say in one line what a table would: for one run of many."""
    return f"plan: {', then '.join(_phase(plan, phase) for phase in plan.phases)}"


def _phase(plan: TrainingPlan, phase: PhasePlan) -> str:
    names = _names(phase.part_names) or "nothing"
    return f"{phase.name} ({names}; {phase.num_params:,} parameters; lr {_peaks(plan, phase)}; epochs {_epochs(phase)})"


def plan_text(plan: TrainingPlan) -> str:
    """Return the table as plain text."""
    console = rich.console.Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    console.print(plan_table(plan))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def write_plan(folder: Path, plan: TrainingPlan) -> tuple[Path, Path]:
    """Write `training_plan.json` and `training_plan.txt` into a run's folder; returns both."""
    as_json, as_text = folder / "training_plan.json", folder / "training_plan.txt"
    publish_text(as_json, json.dumps(plan.as_dict(), indent=2) + "\n")
    publish_text(as_text, plan_text(plan))
    return as_json, as_text
