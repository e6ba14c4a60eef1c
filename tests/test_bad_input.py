"""What a user mistypes leaves as one clear line and exit code 2, before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    where = [f"hydra.run.dir={cwd / 'run'}", f"tracking.uri=sqlite:///{cwd / 'mlflow.db'}"]
    command = [sys.executable, str(ROOT / "run.py"), *arguments, *where]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("lrr=1", "lr"),
        ("lr=abc", "lr"),
        ("lr=-1", "lr"),
        ("epochs=0", "epochs"),
        ("batch_size=0", "batch_size"),
        ("strategy=finetun", "finetune"),
        ("optimizer.momentumm=1", "momentumm"),
        ("dataset.train_size=1.5", "train_size"),
        ("optimizer._target_=os.system", "_target_"),
        ("dataset=image_folder", "dataset.root"),
        ("runtime.train_precision=bf17", "bf16"),
    ],
)
def test_one_line_names_the_key_and_nothing_is_written(override: str, named: str, tmp_path: Path):
    done = run(override, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_an_output_folder_that_cannot_be_made_is_named():
    command = [sys.executable, str(ROOT / "run.py"), "hydra.run.dir=/proc/nowhere", "tracking=none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "/proc/nowhere" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
