"""Charts as plotly takes them, plain traces and layouts that the page draws; here what they share, and curves."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from tl_experiments.sweep.comparison import Comparison, Row
from tl_experiments.sweep.outcome import Outcome, read_epochs
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
MOST_RUNS = 300  # that charts draw one by one; a browser takes seconds for a thousand curves
CURVES = ("val/acc", "val/loss")
REST = "rest"  # the rows after those


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
    """Draw val/acc and val/loss by epoch, a line for each run in the colour of its row; a band for too many of them."""
    drawn = drawn_rows(comparison)
    rows = reversed(comparison.rows[:drawn])  # the best are drawn last, above the others
    epochs = [(row, outcome, read_epochs(outcome)) for row in rows for outcome in row.outcomes]
    rest = _by_epoch(outcome for row in comparison.rows[drawn:] for outcome in row.outcomes)
    charts = []
    for key in CURVES:
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
        traces = [*_band(rest[key]), *traces]
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


def drawn_rows(comparison: Comparison) -> int:
    """Return how many rows, best first, are drawn one by one: as many as have not too many runs together."""
    runs = accumulate(len(row.outcomes) for row in comparison.rows)
    return sum(number <= MOST_RUNS for number in runs)


def _by_epoch(outcomes: Iterable[Outcome]) -> dict[str, dict[int, list[float]]]:
    """Gather the finite values of many runs: metric → epoch → values; no run is kept beside them."""
    values: dict[str, dict[int, list[float]]] = {key: {} for key in CURVES}
    for outcome in outcomes:
        for point in read_epochs(outcome):
            for key, by_epoch in values.items():
                value = rounded(point.get(key))
                if value is not None and "epoch" in point:
                    by_epoch.setdefault(point["epoch"], []).append(value)
    return values


def _band(by_epoch: Mapping[int, Sequence[float]]) -> list[dict[str, Any]]:
    """Draw where the middle 80 % of the runs are that have no line, and their median; nothing where there are none."""
    epochs = sorted(by_epoch)
    if not epochs:
        return []
    low, middle, high = zip(*(np.quantile(by_epoch[epoch], (0.1, 0.5, 0.9)) for epoch in epochs), strict=True)
    shared = {"type": "scatter", "mode": "lines", "x": epochs, "legendgroup": REST, "hoverinfo": "skip"}
    edge = {"color": REST_COLOR, "width": 0}
    return [
        {**shared, "y": [rounded(value) for value in low], "line": edge},
        {**shared, "y": [rounded(value) for value in high], "line": edge, "fill": "tonexty", "opacity": 0.3},
        {**shared, "y": [rounded(value) for value in middle], "line": {"color": REST_COLOR, "dash": "dot", "width": 2}},
    ]


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
