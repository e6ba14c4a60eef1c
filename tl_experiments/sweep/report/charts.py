"""Charts as plotly takes them, plain traces and layouts that the page draws; here what they share, and curves."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tl_experiments.sweep.comparison import Comparison, Row
from tl_experiments.sweep.outcome import read_epochs
from tl_experiments.sweep.statistics import Spread

# Okabe and Ito's colours, those that stand out on white as well as on black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D46")
DASHES = ("solid", "dash", "dot")  # those that CSS can draw as well
COLOURED = len(COLORS) * len(DASHES)  # rows that have a pair of colour and dash of their own
REST_COLOR = "#9AA0A6"  # of the other rows
LOG_RATIO = 100.0  # largest to smallest of settings, two decades, from which an axis is logarithmic
COST_RATIO = 10.0  # the same of seconds and of parameters
LOSS_RATIO = 1000.0
MOST_LABELLED = 30  # points that carry their rank


@dataclass(frozen=True)
class Chart:
    """One chart: a title for people, and what plotly draws.

    Attributes:
        name: of the place on the page.
        title: above it.
        traces: plotly's.
        layout: plotly's.
        min_width: pixels below which the page scrolls it instead of squeezing it.
        text: what it shows, for those who do not see it.
    """

    name: str
    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    min_width: int = 0
    text: str = ""


def color(row: Row) -> str:
    """Return the colour of a row, the same in all charts that draw rows."""
    return color_at(row.rank - 1)


def dash(row: Row) -> str:
    return dash_at(row.rank - 1)


def color_at(place: int) -> str:
    """Return the colour of the first, second, ... of what a chart draws; from 0."""
    return COLORS[place % len(COLORS)] if place < COLOURED else REST_COLOR


def dash_at(place: int) -> str:
    return DASHES[place // len(COLORS)] if place < COLOURED else "solid"


def plain(text: str) -> str:
    """Return text that plotly shows as it is: it reads a part of HTML in every label."""
    return html.escape(text, quote=False)


def learning_charts(comparison: Comparison) -> list[Chart]:
    """Draw val/acc and val/loss by epoch, a line for each run in the colour of its row."""
    rows = reversed(comparison.rows)  # the best are drawn last, above the others
    epochs = [(row, outcome, read_epochs(outcome)) for row in rows for outcome in row.outcomes]
    charts = []
    for key in ("val/acc", "val/loss"):
        traces = [
            {
                "type": "scatter",
                "mode": "lines+markers" if len(points) <= 20 else "lines",
                "x": [point.get("epoch") for point in points],
                "y": [rounded(point.get(key)) for point in points],
                "name": plain(outcome.job.name),
                "legendgroup": str(row.rank),
                "line": {"color": color(row), "dash": dash(row), "width": 2 if row.rank <= len(COLORS) else 1.3},
                "marker": {"size": 5},
                "opacity": 1.0 if row.rank <= COLOURED else 0.4,
                "hovertemplate": f"%{{fullData.name}}<br>epoch %{{x}}: {key} %{{y:.4f}}<extra></extra>",
            }
            for row, outcome, points in epochs
            if any(rounded(point.get(key)) is not None for point in points)
        ]
        values = [value for trace in traces for value in trace["y"] if value is not None]
        if not values:
            continue
        wide = key == "val/loss" and spans(values, LOSS_RATIO)
        layout = {
            "xaxis": {"title": {"text": "epoch"}, "tickformat": "d", **_whole_ticks(traces)},
            "yaxis": {"type": "log" if wide else "linear"},
            "height": 380,
        }
        charts.append(Chart(f"curves-{key[4:]}", key, traces, layout, text=f"{key} by epoch, a line for each run"))
    return charts


def _whole_ticks(traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = max(trace["x"][-1] for trace in traces)
    return {"dtick": 1, "range": [0.5, last + 0.5]} if last <= 12 else {}


def accuracy_points(spreads: Sequence[Spread | None]) -> dict[str, Any]:
    """The y of points, with bars of one standard deviation where it is known."""
    return {"y": [rounded(spread and spread.mean) for spread in spreads], **deviation_bars("error_y", spreads)}


def deviation_bars(name: str, spreads: Sequence[Spread | None], *, color: str = REST_COLOR) -> dict[str, Any]:
    """Bars of one standard deviation, `error_x` or `error_y`; nothing where it is not known of any point."""
    if all(spread is None or spread.sd is None for spread in spreads):
        return {}
    deviations = [rounded(spread and spread.sd) for spread in spreads]
    return {name: {"type": "data", "array": deviations, "color": color, "thickness": 1.5, "width": 4}}


def hover_text(row: Row) -> str:
    test = f"<br>test/acc {row.test_acc.text()}" if row.test_acc else ""
    return f"{row.rank}. {plain(row.label)}<br>val/acc {row.val_acc.text() if row.val_acc else '–'}{test}"


def spans(values: Sequence[float], ratio: float) -> bool:
    """Whether positive values lie so far apart that a logarithmic axis shows them better."""
    return min(values) > 0 and max(values) / min(values) >= ratio


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
