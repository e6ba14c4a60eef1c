"""A search over its jobs: what each came to, the best so far as stairs, and those that were pruned."""

from collections.abc import Sequence
from typing import Any

from tl_experiments.sweep.comparison import Comparison
from tl_experiments.sweep.report.charts import COLORS, REST_COLOR, Chart, plain, rounded
from tl_experiments.sweep.search.progress import Step, search_steps


def search_chart(comparison: Comparison) -> Chart | None:
    """Draw the best val/acc of each job in the order in which they were asked for; nothing for a sweep that planned."""
    steps = search_steps(comparison.outcomes) if comparison.is_search else ()
    if not steps:
        return None
    stairs = [step for step in steps if step.best is not None]
    traces = [
        _points("pruned", [step for step in steps if not step.outcome.finished], {"color": REST_COLOR, "symbol": "x"}),
        _points("finished", [step for step in steps if step.outcome.finished], {"color": COLORS[0]}),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [step.outcome.job.index for step in stairs],
            "y": [rounded(step.best) for step in stairs],
            "line": {"shape": "hv", "color": COLORS[1], "width": 2},
            "hoverinfo": "skip",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "job"}, "tickformat": "d"},
        "yaxis": {"title": {"text": "best val/acc"}},
        "showlegend": True,
        "height": 380,
    }
    return Chart("search", "The search", traces, layout, text="best val/acc by job, the best so far, and pruned jobs")


def _points(name: str, steps: Sequence[Step], marker: dict[str, Any]) -> dict[str, Any]:
    told = [f"{plain(step.outcome.job.name)}<br>{step.num_trained} of {step.num_epochs} epochs" for step in steps]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [step.outcome.job.index for step in steps],
        "y": [rounded(step.val_acc) for step in steps],
        "marker": {"size": 9, **marker},
        "text": told,
        "hovertemplate": "%{text}<br>val/acc %{y:.4f}<extra></extra>",
    }
