"""The plan as people read it, before anything starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_experiments.sweep.plan import Plan

MOST_JOBS = 60  # lines; a longer list is cut in the middle
TITLE_WIDTH = 10


def plan_lines(plan: Plan, *, folder: Path) -> Iterator[str]:
    """Yield the lines.

    Args:
        plan: of the sweep.
        folder: where it will be.
    """
    processes = f"{len(plan.groups)} process{'' if len(plan.groups) == 1 else 'es'}"
    if plan.search is None:
        yield f"plan: {_counted(len(plan.jobs), 'job')} in {processes}, {folder}"
        for key, values in plan.varied.items():
            yield _line("varies", f"{key}: {', '.join(values)}")
    else:
        yield f"plan: a search, {folder}"
        yield from (_line(title, text) for title, text in plan.search.lines())
    constant = [line for line in plan.overrides if line.partition("=")[0] not in plan.varied]
    if constant:
        yield _line("constant", " ".join(constant))
    for group in plan.groups:
        if len(group) > 1:
            yield _line("together", f"jobs {spans(group)}: one pass of the backbone, {len(group)} heads side by side")
    for what in plan.dropped:
        yield _line("left out", what)
    title = "job" if plan.search is None else "first"
    yield from _shortened([_line(title, job.name) for job in plan.jobs])


def _line(title: str, text: str) -> str:
    return f"  {title:<{TITLE_WIDTH}}{text}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= MOST_JOBS:
        return lines
    half = MOST_JOBS // 2
    return [*lines[:half], _line("", f"... {len(lines) - 2 * half} more"), *lines[-half:]]


def spans(indices: Sequence[int]) -> str:
    """Return rising numbers with their runs drawn together.

    >>> spans([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
