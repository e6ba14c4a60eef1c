"""One command trains on real images with real weights, and the same command gives the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parent.parent
SMALL = ("dataset.train_size=100", "epochs=1", "backbone.image_size=32")


def run(folder: Path, *arguments: str) -> dict:
    where = [f"hydra.run.dir={folder}", f"tracking.uri=sqlite:///{folder.parent / 'mlflow.db'}"]
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, *arguments, *where]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["feature", "finetune"])
def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(strategy: str, tmp_path: Path):
    first = run(tmp_path / "a", f"strategy={strategy}", "runtime.workers=0")
    again = run(tmp_path / "b", f"strategy={strategy}", "runtime.workers=2")
    other = run(tmp_path / "c", f"strategy={strategy}", "seed=1")
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]


@pytest.mark.slow
def test_a_run_is_finished_in_mlflow_with_few_params_and_its_artifacts(tmp_path: Path):
    run(tmp_path / "a")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert found.info.status == "FINISHED"
    assert 15 <= len(found.data.params) <= 40
    assert "test/acc" in found.data.metrics
    assert found.inputs.dataset_inputs
