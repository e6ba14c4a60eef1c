"""Every command of the README and the guide is run, on little data and without the network."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.processes import server

ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "docs/guide.md")
LITTLE = ("dataset.train_size=40", "epochs=2", "backbone.image_size=32", "runtime.threads=1")


def commands() -> list[str]:
    """The indented lines of the pages that begin with a program; a command that two pages show is run once."""
    found: dict[str, None] = {}
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if re.match(r" {4,8}(pip|python|pytest|mlflow|tlx|scripts/)", line):
                found |= dict.fromkeys(part.strip() for part in line.partition("  #")[0].split("&&"))
    return list(found)


RUNS = [command for command in commands() if command.startswith(("python run.py", "tlx"))]
# What `.ci/run` does itself, before and while this test runs.
INSTALLATION = ["pip install -e .", 'pip install -e ".[dev]"', "pytest"]
EXTRAS = ['pip install -e ".[optuna]"', 'pip install -e ".[lora]"']  # which `.[dev]` holds
ENDED = ("the run has finished: ", "IDENTICAL: ", "journals delivered to ")
OF_VERBS = (" GB in ", "every row is as it was written", "freed ", "80 images (80 train): nothing is wrong", "lr=")
UI = "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes of photographs of noise."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir()
        for index in range(40):
            pixels = np.random.default_rng(2 * index + label).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader types one command after the other."""
    return tmp_path_factory.mktemp("desk")


def test_every_command_is_of_a_kind_that_is_run():
    assert {*RUNS, *INSTALLATION, UI} <= set(commands()) <= {*RUNS, *INSTALLATION, *EXTRAS, UI}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(step in script for step in ("scripts/check", "pytest", '-e ".[dev]"'))


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_run(command: str, images: Path, desk: Path):
    program, *arguments = shlex.split(command.removeprefix("python ").replace("PATH", str(images)))
    if program == "run.py" and "--help" not in arguments:
        arguments = [argument for argument in arguments if not argument.startswith("dataset.train_size")] + [*LITTLE]
    if program == "tlx" and "lr-find" in arguments:
        arguments += LITTLE
    fewer = "3" if "sweep.resume=latest" in arguments else "2"
    arguments = [re.sub(r"(?<=num_trials=)\d+", fewer, argument) for argument in arguments]
    if "grid=strategies" in arguments:
        arguments += ["seed=0"]
    if "-m" in arguments:
        arguments += ["sweep.n_jobs=2"]
    if any("resnet" in argument for argument in arguments):
        arguments += ["backbone.weights=null"]
    if any("cifar10" in argument for argument in arguments):
        arguments += ["dataset=image_folder", f"dataset.root={images}"]
    code, told = _typed(program, arguments, desk, in_a_fork=program == "run.py" and command != RUNS[0])
    assert code == 0, told
    assert any(text in told for text in (UI, "report.html", "hydra/launcher", *ENDED, *OF_VERBS)), told


def _typed(program: str, arguments: Sequence[str], desk: Path, *, in_a_fork: bool) -> tuple[int, str]:
    """Type a command; returns its exit code and what it said.

    Args:
        program: `run.py` or `tlx`.
        arguments: of it.
        desk: where it is typed.
        in_a_fork: of a process that has imported what it needs, which takes the most of a short run.
    """
    if in_a_fork:
        forked = server().start(*arguments, cwd=desk)
        return forked.wait(limit_seconds=300), forked.output
    python = [str(ROOT / program)] if program == "run.py" else ["-m", "tl_experiments"]
    command = [sys.executable, *python, *arguments]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_ui_serves_its_page(desk: Path):
    (desk / "outputs").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(UI), "--port", str(port), "--workers", "1"],
        cwd=desk,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert "<title>MLflow</title>" in _page(f"http://127.0.0.1:{port}/", seconds=90)
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # its workers too
        server.wait(timeout=30)


def _page(address: str, *, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
