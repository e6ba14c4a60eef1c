"""A strategy of one's own, as the README has it, is run in the repository and outside; cheats are caught."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults.processes import server
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments
from tl_experiments.runtime.errors import RunFailed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8").partition("### A strategy of your own")[2]
CODE, VALUES, SCHEMA, COMMAND = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
LITTLE = ("dataset.train_size=20", "epochs=1", "backbone.image_size=32", "runtime.threads=1", "tracking=none")


def run(cwd: Path, paths: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def trained_by(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "FINISHED"
    [phase] = json.loads((folder / "training_plan.json").read_text())["phases"]
    assert phase["name"] == "spatial"
    assert phase["num_trained_params"] == result["num_trained_params"]
    return result


def test_it_is_short() -> None:
    assert len(CODE.splitlines()) <= 30


@pytest.mark.slow
def test_one_file_one_yaml_and_one_entry_make_an_option(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("tl_experiments", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", copy)
    (copy / "tl_experiments" / "strategies" / "spatial.py").write_text(CODE)
    (copy / "conf" / "strategy" / "spatial.yaml").write_text(VALUES)
    with (copy / "tl_experiments" / "config" / "schema.py").open("a") as schema:
        schema.write(f"\n\n{SCHEMA}")
    ended = run(copy, str(copy), "run.py", "strategy=spatial", *LITTLE, "hydra.run.dir=out")
    assert ended.returncode == 0, ended.stderr
    trained_by(copy / "out")
    wrong = run(copy, str(copy), "run.py", "strategy=spatial", "strategy.min_size=three", *LITTLE)
    assert wrong.returncode == 2
    assert "strategy.min_size: Value 'three'" in wrong.stderr


@pytest.mark.slow
def test_outside_the_repository_it_needs_no_schema_and_goes_on_when_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "spatial.py").write_text(CODE)
    (tmp_path / "my_conf" / "strategy").mkdir(parents=True)
    untyped = "\n".join(VALUES.splitlines()[3:]).replace("tl_experiments.strategies.spatial", "my_lab.spatial")
    (tmp_path / "my_conf" / "strategy" / "spatial.yaml").write_text(untyped)
    _, *command = shlex.split(COMMAND.replace("run.py", str(ROOT / "run.py")))  # the first word sets PYTHONPATH
    paths = f".{os.pathsep}{ROOT}"
    ended = run(tmp_path, paths, *command[1:], *LITTLE, "hydra.run.dir=out")
    assert ended.returncode == 0, ended.stderr
    before = trained_by(tmp_path / "out")
    (tmp_path / "out" / "result.json").unlink()  # as if it had died in the test
    forked = partial(server().start, "resume=out", cwd=tmp_path, environment={"PYTHONPATH": paths}, logs=tmp_path)
    refused = forked().end()
    assert refused.code == 2
    assert "not an allowed target" in refused.err
    again = forked(command[-1]).end()
    assert again.code == 0, again.err
    assert "goes on after epoch 1" in again.out
    assert trained_by(tmp_path / "out")["weights_sha256"] == before["weights_sha256"]


CHEAT = '''
from dataclasses import replace

import torch

from tl_experiments.strategies.feature import Feature


class Cheat(Feature):
    """Changes something of the backbone while it opens its batches."""

    def prepare(self, materials):
        workload = super().prepare(materials)
        [phase] = workload.phases
        backbone = materials.backbone

        def open():
            batches = phase.open()
            {how}
            return batches

        return replace(workload, phases=(replace(phase, open=open),))
'''
HOW = {
    "nothing": "pass",
    "a weight": "next(backbone.parameters()).data.mul_(1.01)",
    "a statistic": "backbone.train()(torch.randn(2, 3, 32, 32))",
}


@pytest.mark.parametrize("how", HOW)
def test_a_strategy_that_changes_what_it_calls_frozen_is_caught(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_member: Callable[..., Member]
) -> None:
    module = f"cheats_by_{how.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(CHEAT.format(how=HOW[how]))
    monkeypatch.syspath_prepend(str(tmp_path))
    member = make_member(f"strategy._target_={module}.Cheat", f"allow_targets=[{module}.]", *LITTLE)
    if how == "nothing":
        run_experiments([member])
        return
    with pytest.raises(RunFailed, match="frozen weights changed while training"):
        run_experiments([member])
    assert json.loads((member.folder / "result.json").read_text())["status"] == "FAILED"
