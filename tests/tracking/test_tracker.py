"""The null tracker can stand wherever the real one does, and importing the door's half of tracking stays cheap."""

import inspect
import subprocess
import sys
from pathlib import Path

from tl_experiments.tracking.mlflow_tracker import MlflowTracker
from tl_experiments.tracking.tracker import NullTracker, Tracker


def test_the_null_tracker_takes_every_call_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker: Tracker = NullTracker(run_name="0", uid="u", parent_uid=None, folder=tmp_path, tags={})
    with tracker as run:
        run.log_params({"lr": 1e-3})
        run.set_tags({"tl.device": "cpu"})
        run.log_metrics({"val/acc": 0.1}, step=1)
        run.log_dataset(name="digits", digest="0", context="train", source="scikit-learn")
        run.log_file(tmp_path / "absent.png")
        run.log_model(tmp_path)
        assert (run.run_id, run.ui_command(), run.charts_link()) == (None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_both_trackers_have_the_same_methods() -> None:
    names = [name for name in vars(Tracker) if not name.startswith("_") and callable(getattr(Tracker, name))]
    assert len(names) == 8
    for name in names:
        expected = inspect.signature(getattr(Tracker, name))
        assert inspect.signature(getattr(MlflowTracker, name)) == expected
        assert inspect.signature(getattr(NullTracker, name)) == expected


def test_a_run_without_tracking_imports_no_mlflow() -> None:
    check = (
        "import sys, tl_experiments.tracking.tracker, tl_experiments.tracking.params, tl_experiments.tracking.links;"
        "sys.exit(bool({'mlflow', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
