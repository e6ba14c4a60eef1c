"""How the program ends: its exit code, what it says, and what the records of a run say about it afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.commands import Ended, take_signals, wait_for
from tests.faults.processes import Program, server

ROOT = Path(__file__).parent.parent
TINY = ("dataset.train_size=100", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1")
FOREVER = ("epochs=1000000", "tracking.experiment_name=stopped")
LIMIT_SECONDS = 240

PROGRAM = """
import os, sys
import hydra
from tl_experiments.door import enter, task
from tl_experiments.runtime.errors import RunFailed, SettingError

@hydra.main(version_base="1.3", config_path=None)
@task
def main(config):
    print("inside:", os.environ.get("HYDRA_FULL_ERROR"), flush=True)
    if config.end == "wrong":
        raise SettingError("the setting is wrong")
    if config.end == "failed":
        raise RunFailed("the run failed")
    if config.end == "defect":
        raise ZeroDivisionError("a defect")

code = enter(main)
print("after:", os.environ.get("HYDRA_FULL_ERROR"), flush=True)
sys.exit(code)
"""


def environment(full_error: str | None = None) -> dict[str, str]:
    """This process's own, with a value of HYDRA_FULL_ERROR or without one."""
    without = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return without | {"PYTHONPATH": str(ROOT)} | ({} if full_error is None else {"HYDRA_FULL_ERROR": full_error})


def start(cwd: Path, *command: str, full_error: str | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(full_error),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_signals,
    )


def wait(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return Ended(process.returncode, out, err)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Ended]:
    """Run a program of three lines behind the real door."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(*arguments: str, full_error: str | None = None) -> Ended:
        where = ("hydra.run.dir=run", "hydra.sweep.dir=sweep", "hydra.job.chdir=false")
        return wait(start(tmp_path, "program.py", *arguments, *where, full_error=full_error))

    return run


@dataclass(frozen=True)
class Runs:
    """Runs that share a store, started side by side."""

    folder: Path
    ended: Mapping[str, Ended]

    def result(self, name: str) -> dict:
        return json.loads((self.folder / name / "result.json").read_text(encoding="utf-8"))

    def mlflow_status(self, name: str) -> str:
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        return client.get_run(self.result(name)["run_id"]).info.status


def stop_when_it_trains(program: Program, folder: Path, number: signal.Signals) -> None:
    """Send a signal once the first epoch is on record."""
    epochs = folder / "metrics.jsonl"
    wait_for(lambda: program.ended or epochs.exists(), lambda: program.output, seconds=LIMIT_SECONDS)
    assert epochs.exists(), program.end()
    program.signal(number, alone=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """One run that is terminated, one that is interrupted and one that diverges."""
    folder = tmp_path_factory.mktemp("door")
    started: dict[str, Program] = {}

    def begin(name: str, *arguments: str) -> Program:
        where = (f"hydra.run.dir={folder / name}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}")
        without = {"HYDRA_FULL_ERROR": "0"}
        started[name] = server().start(*arguments, *TINY, *where, cwd=folder, environment=without, logs=folder)
        return started[name]

    try:
        terminated = begin("terminated", *FOREVER)
        interrupted = begin("interrupted", *FOREVER)
        stop_when_it_trains(terminated, folder / "terminated", signal.SIGTERM)
        stop_when_it_trains(interrupted, folder / "interrupted", signal.SIGINT)
        begin("diverged", "optimizer=sgd", "scheduler=constant", "lr=1e38", "epochs=1")
        yield Runs(folder, {name: program.end(limit_seconds=LIMIT_SECONDS) for name, program in started.items()})
    finally:
        for program in started.values():
            if not program.ended:
                program.signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "line"),
    [("terminated", 143, "received SIGTERM"), ("interrupted", 130, "interrupted by Ctrl-C")],
)
def test_a_run_that_is_stopped_while_it_trains_says_so_and_is_killed_in_both_places(
    name: str, code: int, line: str, runs: Runs
) -> None:
    ended = runs.ended[name]
    assert (ended.code, ended.errors) == (code, [line])
    assert "Traceback" not in ended.err
    assert runs.result(name)["status"] == runs.mlflow_status(name) == "KILLED"
    assert not (runs.folder / name / "model" / "model.json").exists()


@pytest.mark.slow
def test_a_run_that_diverges_exits_1_and_is_failed_in_both_places(runs: Runs) -> None:
    ended = runs.ended["diverged"]
    [line] = ended.errors
    assert ended.code == 1, ended.err
    assert "not finite" in line
    assert "Traceback" not in ended.err
    assert runs.result("diverged")["status"] == runs.mlflow_status("diverged") == "FAILED"
    assert "not finite" in runs.result("diverged")["error"]


def test_a_program_that_is_done_exits_0(program: Callable[..., Ended]) -> None:
    ended = program("+end=well")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("end", "code", "line"), [("wrong", 2, "the setting is wrong"), ("failed", 1, "the run failed")]
)
def test_an_error_that_a_user_can_mend_is_one_line(
    end: str, code: int, line: str, program: Callable[..., Ended]
) -> None:
    ended = program(f"+end={end}")
    assert (ended.code, ended.err) == (code, f"error: {line}\n")


def test_a_defect_is_not_hidden(program: Callable[..., Ended]) -> None:
    ended = program("+end=defect")
    assert ended.code == 1
    assert "ZeroDivisionError: a defect" in ended.err


def test_with_full_error_there_is_the_whole_traceback(program: Callable[..., Ended]) -> None:
    ended = program("+end=wrong", full_error="1")
    assert ended.code == 1
    assert "Traceback (most recent call last)" in ended.err
    assert 'raise SettingError("the setting is wrong")' in ended.err
    composed = program("end=wrong", full_error="1")
    assert composed.code == 1
    assert "Traceback (most recent call last)" in composed.err


@pytest.mark.parametrize("value", [None, "0", ""])
def test_the_users_value_of_full_error_holds_inside_the_task_and_afterwards(
    value: str | None, program: Callable[..., Ended]
) -> None:
    ended = program("-m", "+end=well,wrong,well,failed,well", full_error=value)
    assert re.findall(r"^inside: (.*)$", ended.out, re.MULTILINE) == [str(value)] * 5
    assert re.findall(r"^after: (.*)$", ended.out, re.MULTILINE) == [str(value)]
    assert ended.code == 2
    assert "job 1: the setting is wrong" in ended.errors
    assert "job 3: the run failed" in ended.errors
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("override", ["optimizer=3", "dataset=true", "optimizer=null"])
def test_a_group_that_is_given_no_name_is_one_line(override: str, tmp_path: Path) -> None:
    ended = wait(start(tmp_path, str(ROOT / "run.py"), override, "hydra.run.dir=run"))
    assert ended.code == 2, ended.err
    [line] = ended.errors
    assert ended.err == f"error: {line}\n"


def modules_imported(ended: Ended) -> set[str]:
    lines = re.findall(r"^import time: .*\|\s+([\w.]+)$", ended.err, re.MULTILINE)
    return {name.split(".")[0] for name in lines}


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["lr=-1"], 2), (["optimizer=zzz"], 2)])
def test_help_and_a_bad_input_do_not_wait_for_heavy_libraries(arguments: list[str], code: int, tmp_path: Path) -> None:
    command = ["-X", "importtime", str(ROOT / "run.py"), *arguments, "hydra.run.dir=run"]
    ended = wait(start(tmp_path, *command))
    assert ended.code == code, ended.err[-2000:]
    imported = modules_imported(ended)
    assert {"hydra", "omegaconf", "tl_experiments"} <= imported
    assert not imported & {"torch", "torchvision", "timm", "mlflow", "matplotlib", "numpy", "PIL", "sklearn"}


def test_help_lists_the_groups_with_their_options(tmp_path: Path) -> None:
    ended = wait(start(tmp_path, str(ROOT / "run.py"), "--help"))
    assert ended.code == 0
    assert "strategy: bias_only, feature, finetune, gradual" in ended.out
    assert list(tmp_path.iterdir()) == []
