"""`resume=` names a run, goes on with it as it was begun, and refuses what would make it another."""

import json
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.processes import Program, Strike, server
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep.resumed import resumed_job
from tl_experiments.tracking.run_record import GROUPS, RunRecord

TINY = ("dataset.train_size=100", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1", "epochs=3")
FIRST = "outputs/runs/first"


def _type(desk: Path, *arguments: str, strike: Strike | None = None) -> Program:
    program = server().start(*arguments, cwd=desk, strike=strike)
    program.wait()
    return program


def _errors(program: Program) -> list[str]:
    return [line.removeprefix("error: ") for line in program.output.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a run was killed without a word after its second epoch."""
    desk = tmp_path_factory.mktemp("desk")
    died = _type(desk, *TINY, f"hydra.run.dir={FIRST}", strike=Strike("epoch 2", signal.SIGKILL))
    assert died.code == -signal.SIGKILL
    assert not (desk / FIRST / "result.json").exists()
    return desk


def _client(desk: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{desk / 'outputs' / 'mlflow.db'}")


def _status(desk: Path) -> dict[str, str]:
    return {run.info.run_name or "": run.info.status for run in _client(desk).search_runs(["1"])}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("lr=0.1", "lr=0.1: the run has lr=0.001; it may change "),
        ("strategy=finetune", "strategy=finetune: the run has strategy=feature; "),
        ("runtime.workres=2", "runtime.workres=2: the run has runtime.workres=None; "),
        (
            "runtime.train_precision=bf16",
            "runtime.train_precision=bf16: the run has",
        ),
        ("runtime.workers=-1", "runtime.workers=-1: expected 0 to 256"),
        (
            "optimizer._target_=os.system",
            "optimizer._target_=os.system: the run has optimizer._target_=torch.optim.AdamW",
        ),
    ],
)
def test_what_would_make_it_another_run_is_refused_with_the_difference(desk: Path, typed: str, told: str) -> None:
    program = _type(desk, f"resume={FIRST}", typed)
    assert program.code == 2
    [line] = _errors(program)
    assert told in line


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("nowhere", "no run began here"),
        ("0" * 32, "no such run in sqlite:"),
        ("outputs", "no run began here"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(desk: Path, named: str, told: str) -> None:
    program = _type(desk, f"resume={named}")
    assert program.code == 2
    [line] = _errors(program)
    assert told in line


def test_a_run_that_died_is_marked_by_the_next_start_goes_on_and_says_when_it_has_finished(desk: Path) -> None:
    second = _type(desk, *TINY, "hydra.run.dir=outputs/runs/second", "seed=1")
    assert second.code == 0
    assert "is marked as KILLED" in second.output
    assert json.loads((desk / FIRST / "result.json").read_text())["status"] == "KILLED"
    assert sorted(_status(desk).values()) == ["FINISHED", "KILLED"]

    [run] = [run for run in _client(desk).search_runs(["1"]) if run.info.status == "KILLED"]
    elsewhere = desk / "elsewhere"
    elsewhere.mkdir()
    changes = ("runtime.workers=0", "lr=1e-3", "runtime.log_every_steps=1", "runtime.on_oom=halve")
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{desk / 'outputs' / 'mlflow.db'}"}  # where the id is known
    resumed = server().start(f"resume={run.info.run_id}", *changes, cwd=elsewhere, environment=uri)
    resumed.wait()
    assert resumed.code == 0, resumed.output
    changed = ["runtime.log_every_steps=1 (was 20)", "runtime.on_oom=halve (was error)"]
    assert json.loads((desk / FIRST / "result.json").read_text())["resumed_with"] == changed
    assert all(f"goes on with {line}" in resumed.output for line in changed)
    assert "goes on after epoch 1, step 4" in resumed.output
    assert set(_status(desk).values()) == {"FINISHED"}
    assert len(_status(desk)) == 2
    assert (desk / FIRST / ".hydra").is_dir()

    alone = _type(desk, *TINY, "hydra.run.dir=outputs/runs/alone", "tracking=none")
    assert alone.code == 0
    digests = [json.loads((desk / "outputs/runs" / name / "result.json").read_text()) for name in ("first", "alone")]
    assert digests[0]["weights_sha256"] == digests[1]["weights_sha256"]

    again = _type(desk, "resume=latest")
    assert again.code == 0
    assert "alone: the run has finished: best val/acc" in again.output
    assert "is marked" not in again.output


def test_flags_are_hydras(desk: Path) -> None:
    helped = _type(desk, "--help", "resume=nowhere")
    assert helped.code == 0
    assert "python run.py resume=latest" in helped.output
    shown = _type(desk, "--cfg=job", f"resume={FIRST}")
    assert f"resume: {FIRST}" in shown.output
    refused = _type(desk, "--config-name=config", f"resume={FIRST}")
    assert "without flags" in _errors(refused)[0]


def test_a_sweep_that_died_is_marked_by_the_next_start_too_and_a_job_of_it_goes_on_with_it(desk: Path) -> None:
    died = _type(
        desk,
        "-m",
        *TINY,
        "seed=6,7",
        "hydra.sweep.dir=outputs/sweeps/d",
        strike=Strike("epoch 2", signal.SIGKILL, whom="sweep"),
    )
    assert died.code != 0
    _type(desk, *TINY, "hydra.run.dir=outputs/runs/third", "seed=8", "epochs=1")
    assert "RUNNING" not in _status(desk).values()
    alone = _type(desk, "resume=outputs/sweeps/d/0")
    assert alone.code == 2
    assert "goes on by: python run.py -m sweep.resume=" in _errors(alone)[0]
    both = _type(desk, "-m", "resume=outputs/sweeps/d/0")
    assert both.code == 2
    assert "a sweep goes on by -m sweep.resume=FOLDER" in _errors(both)[0]
    resumed = _type(desk, "-m", "sweep.resume=outputs/sweeps/d")
    assert resumed.code == 0, resumed.output
    assert set(_status(desk).values()) == {"FINISHED"}


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"uid": "u", "status": "FINISHED"}', '{"uid": "u", "val/acc_best": null}']
)
def test_a_result_without_figures_is_told_or_taken_for_none(text: str, tmp_path: Path) -> None:
    record = RunRecord(uid="u", name="u", choices=dict.fromkeys(GROUPS, "x"), sweep_id=None, began="2026")
    record.save(tmp_path)
    (tmp_path / "result.json").write_text(text)
    finished = "FINISHED" in text
    with nullcontext() if finished else pytest.raises(ConfigError, match=r"config\.yaml: no such file"):
        assert "the run has finished" in str(resumed_job([f"resume={tmp_path}"]))


@pytest.mark.parametrize("text", ["[" * 200_000, None])
def test_a_record_that_is_too_deep_or_lacks_choices_is_told(text: str | None, tmp_path: Path) -> None:
    RunRecord(uid="u", name="u", choices={}, sweep_id=None, began="2026").save(tmp_path)
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(SettingError, match=r"run\.json: cannot be read as the record of a run"):
        RunRecord.load(tmp_path)
