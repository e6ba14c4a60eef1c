"""The sweep's own run in the tracking store; its jobs name it by the sweep's uid, whether it is there yet or not."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.plan import Plan
from tl_experiments.tracking.tracker import Tracker

FILE = "parent.json"
NOTE = "mlflow.note.content"  # the description on MLflow's page of a run
TEXT_LENGTH = 4000


def write_parent(folder: Path, run_id: str | None, *, link: str | None, ended: bool) -> None:
    """Leave where the sweep's run is, for people and for a report that is written again.

    Args:
        folder: of the sweep.
        run_id: of its run; None where it is not known, or nothing is tracked.
        link: the page that draws the charts of its jobs.
        ended: whether the run was closed as finished.
    """
    publish_text(folder / FILE, json.dumps({"run_id": run_id, "charts_link": link, "ended": ended}) + "\n")


def read_parent(folder: Path) -> str | None:
    """Return the id of the sweep's run."""
    return _read(folder)["run_id"]


def read_link(folder: Path) -> str | None:
    """Return the page that draws the charts of the sweep's jobs."""
    return _read(folder)["charts_link"]


def parent_ended(folder: Path) -> bool:
    """Whether the sweep's run was closed as finished, so that nothing is left to do."""
    return _read(folder)["ended"]


def _read(folder: Path) -> dict[str, Any]:
    """Return what is known of the sweep's run, which is not there before the first job is about to start."""
    path = folder / FILE
    nothing = {"run_id": None, "charts_link": None, "ended": False}
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):  # a report can do without it
        known = {}
    return nothing | known if isinstance(known, dict) else nothing


def describe_plan(tracker: Tracker, plan: Plan, lines: Sequence[str]) -> None:
    """Record what the sweep is: few params, the rest in tags and in its description.

    Args:
        tracker: of the sweep's run, entered.
        plan: of the sweep.
        lines: the plan as text.
    """
    if plan.search is None:
        varied = {key: ", ".join(values) for key, values in plan.varied.items()}
        own: dict[str, str | int] = {"jobs": len(plan.jobs)}
    else:  # what may grow is no param
        varied = {parameter.key: str(parameter) for parameter in plan.search.space}
        own = {f"search.{key}": getattr(plan.search, key) for key in ("sampler", "pruner", "seed")}
    keys = {key: key.lstrip("+") for key in varied}  # `+key` adds a key that has no default
    shown = {keys[key]: text[:TEXT_LENGTH] for key, text in varied.items() if re.fullmatch(r"[\w.]+", keys[key])}
    tracker.log_params({**own, **shown})
    facts = {"overrides": " ".join(plan.overrides) or "none", **plan.code}
    tags = {
        f"tl.{key if key in ('overrides', 'git_commit') else f'version.{key}'}": text for key, text in facts.items()
    }
    tracker.set_tags({**{key: text[:TEXT_LENGTH] for key, text in tags.items()}, NOTE: _preformatted(lines)})


def _preformatted(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return f"```\n{text[:TEXT_LENGTH]}\n```"
