"""What a user mistypes, or images that cannot be used, leave as one clear line and exit code 2, and no run is made."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.faults.processes import server
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments
from tl_experiments.runtime.errors import DataError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lrr=1", "lrr: no such key; did you mean lr?"),
        ("lr=abc", "lr=abc: expected a number above 0, or auto"),
        ("lr=-1", "lr=-1: expected a number above 0, or auto"),
        ("lr=nan", "lr=nan: expected a number above 0"),
        ("epochs=0", "epochs=0: expected 1 to 1000000"),
        ("batch_size=0", "batch_size=0: expected 1 to 65536"),
        ("lr=1" + "0" * 400, "lr=1000"),
        ("seed='${oc.decode:${oc.env:LINES,3}}'", "seed: takes a value from the environment"),
        ("backbone.weights=/nowhere/mine.pth", "backbone.weights=/nowhere/mine.pth: no such file; expected"),
        ("+hydra.callbacks.x._target_=os.system", "+hydra.callbacks.x._target_=os.system: names code"),
        ("sweep.group=0", "sweep.group is for the processes that a sweep starts"),
        ("sweep.dry_run=true", "sweep.resume and sweep.dry_run are about sweeps; expected -m beside them"),
        ("strategy=finetun", "strategy=finetun: no such option"),
        ("optimizer.momentumm=1", "optimizer.momentumm: no such key; did you mean optimizer.momentum?"),
        ("dataset.train_size=1.5", "dataset.train_size=1.5: expected a count"),
        ("optimizer._target_=os.system", "optimizer._target_=os.system: not an allowed target"),
        ("+strategy.x={_target_:torch.optim.SGD}", "strategy.x._target_=torch.optim.SGD: not allowed here"),
        ("dataset=image_folder", "dataset.root is missing"),
        ("runtime.train_precision=bf17", "runtime.train_precision: Invalid value 'bf17', expected one of"),
    ],
)
def test_one_line_names_the_key_and_nothing_is_written(override: str, told: str, tmp_path: Path):
    folder, logs = tmp_path / "here", tmp_path / "logs"
    folder.mkdir()
    logs.mkdir()
    where = [f"hydra.run.dir={folder / 'run'}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"]
    done = server().start(override, *where, cwd=folder, logs=logs).end()
    assert done.code == 2, done.err
    assert done.err.startswith(f"error: {told}")
    assert len(done.err.splitlines()) == 1
    assert list(folder.iterdir()) == []


def test_a_password_in_an_address_is_refused_before_it_is_written_anywhere(tmp_path: Path):
    command = [sys.executable, str(ROOT / "run.py"), "tracking.uri=http://me:hush@127.0.0.1:1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI" in done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_full_error_a_bad_value_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    command = [sys.executable, str(ROOT / "run.py"), "lr=-1", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("ConfigError: lr=-1: expected a number above 0, or auto")
    assert "callback" not in done.stderr.lower()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: (root / "empty").mkdir(), "/empty: empty class folder"),
        (lambda root: (root / "cat" / "3.png").write_bytes(b"no image"), r"cat/3\.png: cannot be read as an image"),
        (
            lambda root: (root / "dog" / "5.png").write_bytes((root / "dog" / "5.png").read_bytes()[:50]),
            r"dog/5\.png: ",
        ),
        (lambda root: shutil.rmtree(root / "dog"), r"found one class \(cat\)"),
    ],
    ids=["empty class folder", "no image", "damaged image", "one class"],
)
def test_images_that_cannot_be_used_are_named_before_a_run_is_made(
    spoil: Callable[[Path], Any], told: str, make_member: Callable[..., Member], tmp_path: Path
):
    root = tmp_path / "images"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (8, 8), (20 * index, 100 * label, 0)).save(root / name / f"{index}.png")
    spoil(root)
    store = tmp_path / "store" / "mlflow.db"
    member = make_member(
        "dataset=image_folder",
        f"dataset.root={root}",
        "backbone.image_size=32",
        "tracking=mlflow",
        f"tracking.uri=sqlite:///{store}",
    )
    with pytest.raises(DataError, match=told):
        run_experiments([member])
    assert not store.exists()


def test_an_output_folder_that_cannot_be_made_is_named():
    command = [sys.executable, str(ROOT / "run.py"), "hydra.run.dir=/proc/nowhere", "tracking=none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "/proc/nowhere" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
