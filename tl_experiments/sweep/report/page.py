"""The page itself: everything that is known of a sweep, in one file that needs nothing beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.comparison import SEED, Comparison, Row, constant_overrides
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.process import LOG
from tl_experiments.sweep.report.charts import (
    COLOURED,
    MOST_LABELLED,
    REST,
    Chart,
    color,
    dash,
    drawn_rows,
    learning_charts,
)
from tl_experiments.sweep.report.confusion import Confusion, confusions
from tl_experiments.sweep.report.cost_charts import cost_charts, label_chart
from tl_experiments.sweep.report.mistakes import common_mistakes
from tl_experiments.sweep.report.search_chart import search_chart
from tl_experiments.sweep.report.settings_chart import settings_chart
from tl_experiments.sweep.report.templates import environment, inline
from tl_experiments.sweep.search.progress import search_steps
from tl_experiments.tracking.console import clock

CSS_LINES = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
CODE = ("tl_experiments", "git_commit")
MOST_ROWS = 1000  # of one table: a browser takes a second or two for them
KNOBS = ("lr", "epochs", "batch_size", SEED)


@dataclass(frozen=True)
class Page:
    """What the template shows.

    Attributes:
        charts: name → chart.
        matrices: confusion matrices, best row first.
        facts: name → value, about the sweep as a whole.
        constants: key → value, the same in all jobs.
    """

    charts: Mapping[str, Chart]
    matrices: tuple[Confusion, ...]
    facts: Mapping[str, str]
    constants: Mapping[str, str]

    def drawings(self) -> Markup:
        """Return what the page's script draws, as JSON that cannot end the element that holds it."""
        plots = {name: {"traces": chart.traces, "layout": chart.layout} for name, chart in self.charts.items()}
        matrices = [{"names": item.class_names, "counts": item.counts.tolist()} for item in self.matrices]
        text = json.dumps({"plots": plots, "matrices": matrices}, allow_nan=False, separators=(",", ":"))
        return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def write_report(path: Path, *, comparison: Comparison, plan: Plan, link: str | None = None) -> None:
    """Write one HTML page about a sweep, readable offline and on its own.

    Args:
        path: of the page, in the sweep's folder, to which its links are relative.
        comparison: of the sweep.
        plan: of the sweep.
        link: to the charts of the tracking server.
    """
    charts = [
        search_chart(comparison),
        label_chart(comparison),
        settings_chart(comparison),
        *learning_charts(comparison),
        *cost_charts(comparison),
    ]
    matrices, about_matrices = confusions(comparison)
    page = Page(
        charts={chart.name: chart for chart in charts if chart},
        matrices=tuple(matrices),
        facts=_facts(comparison, plan),
        constants=_constants(plan),
    )
    text = (
        _environment(path.parent)
        .get_template("page.html.j2")
        .render(
            page=page,
            plan=plan,
            comparison=comparison,
            drawn=drawn_rows(comparison),
            about_matrices=about_matrices,
            steps=search_steps(comparison.outcomes) if comparison.is_search else (),
            mistakes=common_mistakes(comparison, plan=plan, folder=path.parent),
            link=link,
            style=inline("page.css"),
            script=inline("page.js"),
            plotly=Markup(get_plotlyjs()),
        )
    )
    publish_text(path, text.encode(errors="replace").decode())  # names of files may hold what is no character


def _environment(folder: Path) -> Environment:
    """The ways of all pages, and those of this one."""
    shared = environment(folder)
    shared.filters["swatch"] = swatch
    shared.globals |= {
        "LOG": LOG,
        "SEED": SEED,
        "coloured": COLOURED,
        "labelled": MOST_LABELLED,
        "most": MOST_ROWS,
        "REST": REST,
    }
    return shared


def swatch(row: Row) -> str:
    """Return the CSS of a short line that looks like the row's in the charts."""
    return f"border-top: 4px {CSS_LINES[dash(row)]} {color(row)}"


def _facts(comparison: Comparison, plan: Plan) -> dict[str, str]:
    """Return when, where and what, in the order in which people ask."""
    results = [outcome.result for outcome in comparison.outcomes if outcome.result]
    states: dict[str, int] = {}
    for outcome in comparison.outcomes:
        states[outcome.state] = states.get(outcome.state, 0) + 1
    seconds = sum(result.get("perf/seconds") or result.get("seconds") or 0.0 for result in results)
    processes = _different(results, "processes")
    facts = {
        "planned": _when(plan.created),
        "jobs": f"{len(comparison.outcomes)}: "
        + ", ".join(f"{count} {state.lower()}" for state, count in states.items()),
        "time of all runs": (f"{seconds:.0f} s" if seconds < 100 else clock(seconds)) if results else "",
        "device": _different(results, "device"),
        "processes of a run": "" if processes == "1" else processes,
        "machine": _different(results, "host"),
        "code": f"{plan.code.get('tl_experiments', '')}, commit {_short(plan.code.get('git_commit', 'none'))}",
        "libraries": ", ".join(f"{name} {version}" for name, version in plan.code.items() if name not in CODE),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _different(results: list[Mapping[str, Any]], key: str) -> str:
    return "; ".join(sorted({str(result[key]) for result in results if result.get(key)}))


def _short(commit: str) -> str:
    """Return a commit as people write it, still marked where files were changed."""
    digits, dirty, _ = commit.partition("-dirty")
    return digits[:12] + dirty


def _when(created: str) -> str:
    try:
        return datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return created


def _constants(plan: Plan) -> dict[str, str]:
    """Return what all jobs share: options of groups, the knobs that people ask for first, and what was typed."""
    shared: dict[str, str] = {}
    if plan.jobs:
        first = plan.jobs[0]
        for group, option in first.choices.items():
            if all(job.choices.get(group) == option for job in plan.jobs):
                shared[group] = option
        for key in KNOBS:
            if key in first.config and all(job.config.get(key) == first.config[key] for job in plan.jobs):
                shared[key] = str(first.config[key])
    typed = {key: value for key, value in constant_overrides(plan).items() if key not in shared}
    return shared | typed
