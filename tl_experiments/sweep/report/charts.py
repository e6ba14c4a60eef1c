"""Charts as plotly takes them, plain traces and layouts that the page draws: learning curves, accuracy and its cost."""

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
    """Return the colour of a row, the same in all charts."""
    return COLORS[(row.rank - 1) % len(COLORS)] if row.rank <= COLOURED else REST_COLOR


def dash(row: Row) -> str:
    return DASHES[(row.rank - 1) // len(COLORS)] if row.rank <= COLOURED else "solid"


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


def cost_charts(comparison: Comparison) -> list[Chart]:
    """Draw val/acc over what it costs: seconds, and trained parameters where they differ."""
    rows = [row for row in reversed(comparison.rows) if row.val_acc]
    costs = {
        "seconds": ("Accuracy and time", "seconds of a run", [row.seconds and row.seconds.mean for row in rows]),
        "params": ("Accuracy and trained parameters", "trained parameters", [row.num_trained_params for row in rows]),
    }
    return [
        _cost(name, title, axis, [(row, cost) for row, cost in zip(rows, values, strict=True) if cost])
        for name, (title, axis, values) in costs.items()
        if len({value for value in values if value}) > 1
    ]


def _cost(name: str, title: str, axis: str, points: Sequence[tuple[Row, float]]) -> Chart:
    traces = [
        {
            "type": "scatter",
            "mode": "markers+text" if len(points) <= MOST_LABELLED else "markers",
            "x": [round(cost, 2)],
            **accuracy_points([row.val_acc]),
            "legendgroup": str(row.rank),
            "name": plain(row.label),
            "marker": {"size": 11, "color": color(row)},
            "text": [str(row.rank)],
            "textposition": "middle right",
            "hovertext": [f"{hover_text(row)}<br>{axis} {cost:,.{0 if name == 'params' else 1}f}"],
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
        for row, cost in points
    ]
    kind = "log" if spans([cost for _, cost in points], COST_RATIO) else "linear"
    layout = {
        "xaxis": {
            "title": {"text": axis},
            "type": kind,
            **({"dtick": 1} if spans([cost for _, cost in points], LOG_RATIO) else {"rangemode": "tozero"}),
        },
        "yaxis": {"title": {"text": "val/acc"}},
        "height": 340,
    }
    return Chart(f"cost-{name}", title, traces, layout, text=f"val/acc of each row over {axis}")


def accuracy_points(spreads: Sequence[Spread | None]) -> dict[str, Any]:
    """The y of points, with bars of one standard deviation where it is known."""
    points: dict[str, Any] = {"y": [rounded(spread and spread.mean) for spread in spreads]}
    if any(spread and spread.sd is not None for spread in spreads):
        deviations = [rounded(spread and spread.sd) for spread in spreads]
        points["error_y"] = {"type": "data", "array": deviations, "color": REST_COLOR, "thickness": 1.5, "width": 4}
    return points


def hover_text(row: Row) -> str:
    test = f"<br>test/acc {row.test_acc.text()}" if row.test_acc else ""
    return f"{row.rank}. {plain(row.label)}<br>val/acc {row.val_acc.text() if row.val_acc else '–'}{test}"


def spans(values: Sequence[float], ratio: float) -> bool:
    """Whether positive values lie so far apart that a logarithmic axis shows them better."""
    return min(values) > 0 and max(values) / min(values) >= ratio


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
