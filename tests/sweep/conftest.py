"""Real sweeps in real processes, and what they leave: files, a ledger, runs in MLflow."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.commands import Ended, take_signals
from tests.faults.processes import PATHS, Program, server

ROOT = Path(__file__).parent.parent.parent
TINY = ("dataset.train_size=100", "epochs=1", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1")
FAULTY = ("strategy._target_=faults.Faulty", "allow_targets=[faults.]")
LIMIT_SECONDS = 240


@dataclass(frozen=True)
class Desk:
    """A folder in which commands are typed."""

    folder: Path

    def begin(self, *arguments: str, logs: Path) -> Program:
        """Begin a sweep, forked from a process that has imported: that takes the most of a short one."""
        return server().start("-m", *TINY, *arguments, cwd=self.folder, logs=logs)

    def start(self, *arguments: str, tiny: bool = True) -> subprocess.Popen[str]:
        """Begin a sweep as a shell does, in a process group of its own that imports what it needs."""
        environment = os.environ | {"PYTHONPATH": PATHS}
        command = [sys.executable, str(ROOT / "run.py"), "-m", *(TINY if tiny else ()), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=take_signals,
        )

    def sweep(self, *arguments: str, tiny: bool = True) -> Ended:
        """Run a sweep to its end, begun as `begin` does."""
        with tempfile.TemporaryDirectory() as logs:
            command = ("-m", *(TINY if tiny else ()), *arguments)
            program = server().start(*command, cwd=self.folder, logs=Path(logs))
            return end_of(program)

    @property
    def sweep_folder(self) -> Path:
        """The one sweep that was planned here."""
        [plan] = (self.folder / "outputs" / "sweeps").glob("*/plan.json")
        return plan.parent

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.sweep_folder / "ledger.jsonl").read_text().splitlines()]

    def results(self) -> dict[int, dict[str, Any]]:
        """The results by the number of the job."""
        return {int(path.parent.name): json.loads(path.read_text()) for path in self.sweep_folder.glob("*/result.json")}

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'outputs' / 'mlflow.db'}")

    def runs(self, kind: str) -> list[Run]:
        """The runs of a kind, run or sweep, by name."""
        experiment = self.client.get_experiment_by_name("tl_experiments")
        assert experiment is not None
        runs = self.client.search_runs([experiment.experiment_id], f"tags.`tl.kind` = '{kind}'")
        return sorted(runs, key=lambda run: run.info.run_name or "")

    def parent(self) -> Run:
        """The one run of the sweep, to which those of all its jobs belong."""
        [parent] = self.runs("sweep")
        assert {run.data.tags["mlflow.parentRunId"] for run in self.runs("run")} == {parent.info.run_id}
        return parent


def end_of(program: Program) -> Ended:
    """Wait for a sweep that was begun; one that takes too long is ended."""
    return program.end(limit_seconds=LIMIT_SECONDS)


def wait(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command; one that takes too long is killed with all that it started."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, out, err)


def processes_in(folder: Path) -> list[str]:
    """The command lines of the processes that work in a folder: a sweep, its server, its jobs and their helpers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (process / "cwd").readlink() == folder and (line := (process / "cmdline").read_bytes()):
                found.append(line.replace(b"\0", b" ").decode())  # a process that is ending has none
    return found


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Ended]:
    """Four jobs at once, each in a process of its own, on a store that nobody has touched."""
    desk = Desk(tmp_path_factory.mktemp("several"))
    return desk, desk.sweep("lr=1e-3,1e-2", "seed=0,1", "sweep.n_jobs=4", "sweep.max_heads=1")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def make_desk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Desk]:
    """Make a desk of a name."""
    return lambda name: Desk(tmp_path_factory.mktemp(name))
