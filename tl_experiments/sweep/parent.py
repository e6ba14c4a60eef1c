"""The sweep's own run in the tracking store: made once, found by its jobs through the sweep's folder."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.plan import Plan
from tl_experiments.tracking.tracker import Tracker

FILE = "parent.json"
NOTE = "mlflow.note.content"  # the description on MLflow's page of a run
TEXT_LENGTH = 4000


def write_parent(folder: Path, run_id: str | None, *, ended: bool) -> None:
    """Leave the id of the sweep's run where its jobs find it; None where nothing is tracked."""
    publish_text(folder / FILE, json.dumps({"run_id": run_id, "ended": ended}) + "\n")


def read_parent(folder: Path) -> str | None:
    """Return the id of the sweep's run."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))["run_id"]


def parent_ended(folder: Path) -> bool:
    """Whether the sweep's run was closed as finished, so that nothing is left to do."""
    path = folder / FILE
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["ended"]


def describe_plan(tracker: Tracker, plan: Plan, lines: Sequence[str]) -> None:
    """Record what the sweep is: few params, the rest in tags and in its description.

    Args:
        tracker: of the sweep's run, entered.
        plan: of the sweep.
        lines: the plan as text.
    """
    varied = {
        key: ", ".join(values)[:TEXT_LENGTH] for key, values in plan.varied.items() if re.fullmatch(r"[\w.]+", key)
    }
    tracker.log_params({"jobs": len(plan.jobs), **varied})
    facts = {"overrides": " ".join(plan.overrides) or "none", **plan.code}
    tags = {
        f"tl.{key if key in ('overrides', 'git_commit') else f'version.{key}'}": text for key, text in facts.items()
    }
    tracker.set_tags({**{key: text[:TEXT_LENGTH] for key, text in tags.items()}, NOTE: _preformatted(lines)})


def _preformatted(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return f"```\n{text[:TEXT_LENGTH]}\n```"
