"""What accuracy costs: labelled images, seconds, and trained parameters."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

from tl_experiments.sweep.comparison import Comparison, Row, varied_label
from tl_experiments.sweep.report.charts import (
    COLOURED,
    COST_RATIO,
    MOST_LABELLED,
    MOST_RUNS,
    REST,
    REST_COLOR,
    Chart,
    color,
    color_at,
    dash_at,
    deviation_bars,
    hover_text,
    plain,
    rounded,
    spans,
)

TRAIN_SIZE = "dataset.train_size"
NEAREST = 0.04  # of an axis: marks that lie closer would cover each other
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def label_chart(comparison: Comparison) -> Chart | None:
    """Draw test/acc over the number of training images, a line for each of the other settings; nothing for one size."""
    lines = _lines_over_size(comparison)
    if not lines:
        return None
    drawn = islice(lines.items(), MOST_RUNS)
    traces = [_line(name, rows, place=place) for place, (name, rows) in enumerate(drawn)]
    counts = sorted({count for trace in traces for count in trace["x"]})
    axis: dict[str, Any] = {"title": {"text": "training images"}, "type": "linear", "rangemode": "tozero"}
    if spans(counts, COST_RATIO):
        marks = _apart(counts)
        axis = axis | {"type": "log", "tickvals": marks, "ticktext": [f"{count:,d}" for count in marks]}
    layout = {
        "xaxis": axis,
        "yaxis": {"title": {"text": "test/acc"}},
        "height": 440,
        "showlegend": len(traces) > 1,
        "legend": LEGEND,
    }
    text = "test/acc over the number of training images, a line for each of the other settings"
    return Chart("labels", "Accuracy and labelled images", traces, layout, text=text)


def cost_charts(comparison: Comparison) -> list[Chart]:
    """Draw test/acc over seconds and over trained parameters, a point for each row, where they differ."""
    rows = [row for row in reversed(comparison.rows) if row.test_acc]
    costs = {
        "seconds": ("Accuracy and time", "seconds of a run", [row.seconds and row.seconds.mean for row in rows]),
        "params": ("Accuracy and trained parameters", "trained parameters", [row.num_trained_params for row in rows]),
    }
    return [
        _cost(name, title, axis, [(row, cost) for row, cost in zip(rows, values, strict=True) if cost is not None])
        for name, (title, axis, values) in costs.items()
        if len({value for value in values if value is not None}) > 1
    ]


def _lines_over_size(comparison: Comparison) -> dict[str, list[Row]]:
    """Gather the rows that differ by their number of images alone, fewest first; the line of the best row is first."""
    lines: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in comparison.rows:
        if row.test_acc and row.num_train_images:
            rest = tuple((key, value) for key, value in row.values.items() if key != TRAIN_SIZE)
            lines.setdefault(rest, []).append(row)
    return {
        varied_label(dict(rest)): sorted(rows, key=lambda row: row.num_train_images or 0)
        for rest, rows in lines.items()
        if len({row.num_train_images for row in rows}) > 1
    }


def _line(name: str, rows: Sequence[Row], *, place: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row.num_train_images for row in rows],
        "y": [rounded(row.test_acc and row.test_acc.mean) for row in rows],
        **deviation_bars("error_y", [row.test_acc for row in rows], color=color_at(place)),
        "name": plain(name),
        "showlegend": place < COLOURED,
        "line": {"color": color_at(place), "dash": dash_at(place), "width": 2},
        "marker": {"size": 8, "color": color_at(place)},
        "text": [f"{hover_text(row)}<br>{row.num_train_images:,d} training images" for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _apart(counts: Sequence[int]) -> list[int]:
    """Return those of rising numbers whose marks on a logarithmic axis do not cover each other; the last is one."""
    nearest = math.log(counts[-1] / counts[0]) * NEAREST
    marks: list[int] = []
    for count in reversed(counts):
        if not marks or math.log(marks[-1] / count) >= nearest:
            marks.append(count)
    return marks[::-1]


def _cost(name: str, title: str, axis: str, points: Sequence[tuple[Row, float]]) -> Chart:
    most = max(len(points) - MOST_RUNS, 0)  # the best come last
    traces = [_point(name, axis, row, cost, labelled=len(points) <= MOST_LABELLED) for row, cost in points[most:]]
    if most:
        traces.insert(0, _crowd(points[:most]))
    scale = _scale([cost for _, cost in points])
    if scale["type"] == "log":
        for trace in traces:
            trace["x"] = [cost or scale["tickvals"][0] for cost in trace["x"]]
    layout = {
        "xaxis": {"title": {"text": axis}, **scale},
        "yaxis": {"title": {"text": "test/acc"}},
        "height": 340,
    }
    return Chart(f"cost-{name}", title, traces, layout, text=f"test/acc of each row over {axis}")


def _point(name: str, axis: str, row: Row, cost: float, *, labelled: bool) -> dict[str, Any]:
    point: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers+text" if labelled else "markers",
        "x": [round(cost, 2)],
        "y": [rounded(row.test_acc and row.test_acc.mean)],
        **deviation_bars("error_y", [row.test_acc]),
        "legendgroup": str(row.rank),
        "name": plain(row.label),
        "marker": {"size": 11, "color": color(row)},
        "text": [str(row.rank)],
        "textposition": "top right",
        "hovertext": [f"{hover_text(row)}<br>{axis} {cost:,.{0 if name == 'params' else 1}f}"],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    return point | (deviation_bars("error_x", [row.seconds]) if name == "seconds" else {})


def _crowd(points: Sequence[tuple[Row, float]]) -> dict[str, Any]:
    """The rows after those that have a point of their own, as one cloud."""
    return {
        "type": "scattergl",
        "mode": "markers",
        "x": [round(cost, 2) for _, cost in points],
        "y": [rounded(row.test_acc and row.test_acc.mean) for row, _ in points],
        "legendgroup": REST,
        "marker": {"size": 5, "color": REST_COLOR, "opacity": 0.5},
        "text": [f"{row.rank}. {plain(row.label)}" for row, _ in points],
        "hovertemplate": "%{text}<br>test/acc %{y:.4f}<extra></extra>",
    }


def _scale(costs: Sequence[float]) -> dict[str, Any]:
    """An axis to scale, or a logarithmic one, on which nothing (k-NN trains nothing) has a place left of the others."""
    known = [cost for cost in costs if cost]
    if not spans(known, COST_RATIO):
        return {"type": "linear", "rangemode": "tozero"}
    powers = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    marks = {step * 10.0**power: _short(step * 10.0**power) for power in powers for step in steps}
    if len(known) < len(costs):
        marks = {10.0 ** (powers[0] - 1): "0", **marks}
    return {"type": "log", "tickvals": list(marks), "ticktext": list(marks.values())}


def _short(number: float) -> str:
    """Return a mark's number as axes have room for: 20k, 1M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"
