"""How accuracy follows from the settings: a plain chart for one key that varies, parallel coordinates for more."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tl_experiments.sweep.comparison import Comparison, Row
from tl_experiments.sweep.report.charts import LOG_RATIO, Chart, accuracy_points, color, hover_text, plain, spans
from tl_experiments.sweep.statistics import Spread

SCALE = ((0.0, "#A9B7C6"), (0.5, "#0072B2"), (1.0, "#D55E00"))  # worst to best, visible on white and on black
HIDDEN = {"size": 1, "color": "rgba(0,0,0,0)"}  # a padded range is no value
MOST_TICKS = 12  # numbers that an axis of parallel coordinates marks one by one
MOST_NAMES = 200  # of categories that an axis names; of more, every second or third
CHARACTER = 7.2  # width in pixels of an average one
MOST_HEIGHT = 1400
RIGHT_MARGIN = 56  # where the title of the last axis ends
LINE_HEIGHT = 26  # pixels that one category of an axis takes at least


def settings_chart(comparison: Comparison) -> Chart | None:
    """Draw val/acc by the settings: a plain chart for one key, parallel coordinates for more, nothing for none."""
    rows = [row for row in comparison.rows if row.val_acc]
    if len(rows) < 2 or not comparison.keys:
        return None
    if len(comparison.keys) == 1:
        return _by_value(comparison.keys[0], rows)
    return _parallel(comparison.keys, rows)


def _by_value(key: str, rows: Sequence[Row]) -> Chart:
    """Draw val/acc over one key: numbers to scale, anything else as categories in planned order."""
    ordered = sorted(rows, key=lambda row: row.outcomes[0].job.index)
    numbers = _numbers([row.values.get(key) for row in ordered])
    names = [plain(row.shown(key)) for row in ordered]
    axis: dict[str, Any] = {"title": {"text": plain(key)}, "type": "category"}
    if numbers is not None:
        axis["type"] = "log" if spans(numbers, LOG_RATIO) else "linear"
        marks = dict(zip(numbers, names, strict=True))
        axis |= {"tickvals": list(marks), "ticktext": list(marks.values())} if len(marks) <= MOST_TICKS else {}
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": names if numbers is None else numbers,
        **accuracy_points([row.val_acc for row in ordered]),
        "marker": {"size": 11, "color": [color(row) for row in ordered]},
        "text": [hover_text(row) for row in ordered],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {"xaxis": axis, "yaxis": {"title": {"text": "val/acc"}}, "height": 360}
    return Chart("settings", f"val/acc by {key}", [trace], layout, text=f"val/acc of each row over {key}")


def _parallel(keys: Sequence[str], rows: Sequence[Row]) -> Chart:
    """Draw parallel coordinates: a line for each row through its settings, its val/acc and its test/acc."""
    axes = [_axis(key, [row.values.get(key) for row in rows], [row.shown(key) for row in rows]) for key in keys]
    widest = max(axes, key=_axis_width)
    axes.sort(key=lambda axis: axis is not widest)  # the longest labels have room left of the first axis alone
    axes.append(_measure("val/acc", [row.val_acc for row in rows]))
    if all(row.test_acc for row in rows):
        axes.append(_measure("test/acc", [row.test_acc for row in rows]))
    accuracies = axes[len(keys)]["values"]
    low, high = _padded(accuracies)
    line = {"color": accuracies, "colorscale": SCALE, "cmin": low, "cmax": high}
    trace = {"type": "parcoords", "rangefont": HIDDEN, "line": line, "dimensions": axes, "labelside": "top"}
    first, *others = [round(_axis_width(axis)) for axis in axes]
    most = max(len(axis.get("ticktext", ())) for axis in axes)
    layout = {
        "height": min(max(380, 110 + LINE_HEIGHT * most), MOST_HEIGHT),
        "margin": {"l": first + 8, "r": RIGHT_MARGIN, "t": 60, "b": 24},
    }
    min_width = first + RIGHT_MARGIN + max(others) * len(others)
    text = f"parallel coordinates of {', '.join(keys)}, val/acc and test/acc"
    return Chart("settings", "Settings and accuracy", [trace], layout, min_width, text)


def _axis(key: str, typed: Sequence[str | None], shown: Sequence[str]) -> dict[str, Any]:
    """An axis of settings: numbers to scale, logarithmic where they span two decades; else a place for each value."""
    numbers = _numbers(typed)
    if numbers is None:
        first = {name: place for place, name in reversed(list(enumerate(shown)))}
        names = sorted(first, key=lambda name: (_number(name) is None, _number(name) or 0.0, first[name]))
        step = math.ceil(len(names) / MOST_NAMES)
        place_of = {name: place for place, name in enumerate(names)}
        return {
            "label": plain(key),
            "values": [place_of[name] for name in shown],
            "tickvals": list(range(0, len(names), step)),
            "ticktext": names[::step],  # which plotly takes literally, unlike other labels
            "range": [-0.5, len(names) - 0.5],
        }
    logarithmic = spans(numbers, LOG_RATIO)
    places = [math.log10(number) if logarithmic else number for number in numbers]
    axis = {"label": plain(key), "values": [round(place, 6) for place in places], "range": _padded(places)}
    marks = dict(sorted(zip(places, shown, strict=True)))
    if len(marks) > MOST_TICKS and logarithmic:
        marks = {power: f"{10.0**power:g}" for power in range(math.ceil(min(places)), math.floor(max(places)) + 1)}
    if len(marks) <= MOST_TICKS:
        axis |= {"tickvals": [round(place, 6) for place in marks], "ticktext": list(marks.values())}
    return axis


def _measure(title: str, spreads: Sequence[Spread | None]) -> dict[str, Any]:
    values = [round(spread.mean, 5) for spread in spreads if spread]
    return {"label": title, "values": values, "range": _padded(values), "tickformat": ".3f"}


def _axis_width(axis: Mapping[str, Any]) -> float:
    """Pixels that an axis needs to its left for its labels, and for its title over it."""
    longest = max(map(len, axis.get("ticktext", ())), default=6)
    return max(longest * CHARACTER + 24.0, len(html.unescape(axis["label"])) * CHARACTER / 2 + 40.0, 90.0)


def _numbers(typed: Sequence[str | None]) -> list[float] | None:
    """Return all values as numbers; None where one is missing or is none."""
    numbers = [None if text is None else _number(text) for text in typed]
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _padded(values: Sequence[float]) -> list[float]:
    """Return a range around the values; one of some width where all are equal, which plotly cannot draw."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return [low - margin, high + margin]
