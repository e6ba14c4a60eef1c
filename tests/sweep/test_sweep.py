"""A sweep from the command line to MLflow: planned first, one parent, the same whatever launches its jobs."""

import re
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import Ended
from tests.sweep.conftest import FAULTY, Desk, end_of
from tests.sweep.faults import RAISES
from tl_experiments.cli.report import SWEEPS
from tl_experiments.cli.verbs import main
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep.folder import find_sweep
from tl_experiments.sweep.report_again import folder_of


@pytest.mark.slow
def test_jobs_that_begin_together_on_a_fresh_store_all_finish_under_one_parent(several: tuple[Desk, Ended]) -> None:
    desk, ended = several
    assert ended.code == 0, ended.err
    assert [run.info.status for run in desk.runs("run")] == ["FINISHED"] * 4
    assert desk.parent().info.status == "FINISHED"


@pytest.mark.slow
def test_the_parent_holds_plan_table_report_and_winner(several: tuple[Desk, Ended]) -> None:
    desk, _ = several
    [parent] = desk.runs("sweep")
    assert parent.data.params == {"jobs": "4", "lr": "0.001, 0.01", "seed": "0, 1"}
    assert "lr=1e-3,1e-2" in parent.data.tags["tl.overrides"]
    assert "varies    lr: 0.001, 0.01" in parent.data.tags["mlflow.note.content"]
    artifacts = {artifact.path for artifact in desk.client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"report.html", "results.csv", "table.md"}
    by_lr: dict[float, list[dict]] = {}
    for run in desk.runs("run"):
        by_lr.setdefault(float(run.data.params["lr"]), []).append(run.data.metrics)
    means = {lr: sum(run["val/acc_best"] for run in runs) / 2 for lr, runs in by_lr.items()}
    best = max(means, key=lambda lr: means[lr])
    assert parent.data.tags["tl.winner"] == f"lr={best}"
    assert parent.data.metrics["val/acc_best"] == pytest.approx(means[best])
    assert parent.data.metrics["test/acc"] == pytest.approx(sum(run["test/acc"] for run in by_lr[best]) / 2)


@pytest.mark.slow
def test_the_plan_comes_first_and_the_table_last(several: tuple[Desk, Ended]) -> None:
    desk, ended = several
    lines = ended.out.splitlines()
    assert lines[0] == f"plan: 4 jobs in 4 processes, {desk.sweep_folder}"
    assert not [line for line in lines if "together" in line]
    assert ended.out.index("plan:") < ended.out.index("[0] starts") < ended.out.index("rank")
    assert "best by val/acc: lr=" in ended.out
    assert re.search(r"^time    \d+\.\d s, of which \d+\.\d s were the own time of 4 jobs", ended.out, re.MULTILINE)
    assert (desk.sweep_folder / "report.html").stat().st_size > 1e6
    assert (desk.sweep_folder / "multirun.yaml").exists()
    assert (desk.sweep_folder / "2" / ".hydra" / "overrides.yaml").read_text().splitlines()[-2:] == [
        "- lr=0.01", "- seed=0",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_report_is_made_again_by_any_name_of_the_sweep(
    several: tuple[Desk, Ended], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, _ = several
    monkeypatch.chdir(desk.folder)
    ids = desk.runs("sweep")[0].info.run_id, desk.runs("run")[2].info.run_id
    assert {folder_of(run_id, None) for run_id in ids} == {desk.sweep_folder}
    assert find_sweep(str(desk.sweep_folder), sweeps=SWEEPS) == desk.sweep_folder
    report, table = desk.sweep_folder / "report.html", desk.sweep_folder / "table.md"
    before_table = table.read_text()
    report.unlink()
    table.unlink()
    before = [(run.info.status, run.info.end_time) for run in desk.runs("sweep")]
    assert main(["report", "latest"]) == 0
    assert report.exists()
    assert table.read_text() == before_table
    assert "best by val/acc: lr=" in capsys.readouterr().out
    assert [(run.info.status, run.info.end_time) for run in desk.runs("sweep")] == before


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ("latest", "no sweep was planned in"),
        ("nowhere", "no sweep was planned here"),
        ("0" * 32, "no such database"),
    ],
)
def test_a_report_of_nothing_is_one_line(
    named: str, error: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk.folder)
    assert main(["report", named]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert error in line
    assert list(desk.folder.iterdir()) == []


def test_a_typo_in_one_value_of_twenty_is_told_at_once_and_nothing_is_made(desk: Desk) -> None:
    values = ",".join([f"{number}e-4" for number in range(1, 20)] + ["1e-l"])
    ended = desk.sweep(f"lr={values}", tiny=False)
    assert ended.code == 2
    assert ended.errors == ["job 19 lr=1e-l: lr=1e-l: expected a number above 0, or auto"]
    assert list(desk.folder.iterdir()) == []


def test_a_dry_run_prints_the_plan_and_makes_nothing(desk: Desk) -> None:
    ended = desk.sweep("strategy=feature,finetune", "lr=1e-3,1e-4", "sweep.dry_run=true", tiny=False)
    assert ended.code == 0, ended.err
    assert "job       3 finetune lr=0.0001" in ended.out
    assert "together  jobs 0-1: one pass of the backbone, 2 heads side by side" in ended.out
    assert list(desk.folder.iterdir()) == []


def test_a_target_that_is_not_there_is_found_before_any_job_starts(desk: Desk) -> None:
    ended = desk.sweep("optimizer._target_=torch.optim.AdamW,torch.optim.AdamX", tiny=False)
    assert ended.code == 2
    [error] = ended.errors
    assert error.startswith("job 1 optimizer._target_=torch.optim.AdamX: ")
    assert "there is no such thing to call" in error
    assert list(desk.folder.iterdir()) == []


@pytest.mark.slow
def test_two_sweeps_in_the_same_second_have_a_folder_each_and_files_are_read_once(desk: Desk, tmp_path: Path) -> None:
    conf = tmp_path / "mine"
    (conf / "experiment").mkdir(parents=True)
    recipe = conf / "experiment" / "mine.yaml"
    recipe.write_text("# @package _global_\nbatch_size: 16\n")
    where = (f"hydra.searchpath=[file://{conf}]", "experiment=mine", "seed=0")
    first, second = desk.begin(*where, logs=tmp_path), desk.begin(*where, logs=tmp_path)
    while len(list(desk.folder.glob("outputs/sweeps/*/plan.json"))) < 2:
        assert not first.ended, first.output
        time.sleep(0.05)
    recipe.write_text("not: [valid")  # an edit during the sweep
    assert [end_of(first).code, end_of(second).code] == [0, 0]
    assert {run.data.params["batch_size"] for run in desk.runs("run")} == {"16"}
    assert len(desk.runs("run")) == 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in desk.runs("run")}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"),
    [("basic", "hydra"), ("joblib", "joblib")],  # submitit and Ray have files of their own
)
def test_other_launchers_have_the_same_parent_ledger_and_report(launcher: str, package: str, desk: Desk) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    ended = desk.sweep(*FAULTY, f"seed=0,{RAISES}", f"hydra/launcher={launcher}", "sweep.n_jobs=2")
    assert ended.code == 1, ended.err
    assert any(error.startswith(f"job 1 seed={RAISES} FAILED: FaultError: by design") for error in ended.errors)
    assert [run.info.status for run in desk.runs("run")] == ["FINISHED", "FAILED"]
    assert desk.parent().info.status == "FAILED"
    assert {entry["job"]: entry["state"] for entry in desk.ledger()} == {0: "FINISHED", 1: "FAILED"}
    assert (desk.sweep_folder / "report.html").exists()


@pytest.mark.parametrize(
    ("package", "extra", "launcher"),
    [("ray", "ray", "ray_launcher.RayLauncher"), ("submitit", "slurm", "submitit_launcher.SlurmLauncher")],
)
def test_a_library_of_a_cluster_that_is_not_installed_names_its_extra(
    package: str, extra: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    settings = {"num_cpus": 1, "num_gpus": 0, "memory_gb": None, "max_retries": 0, "autoscales": False}
    own = {**settings, "timeout": None, "runtime_env": {}} if package == "ray" else {"submitit_folder": "nowhere"}
    module, _, name = launcher.partition(".")
    made = getattr(import_module(f"tl_experiments.sweep.{module}"), name)(**own)
    with pytest.raises((ConfigError, SettingError), match=rf"pip install -e '\.\[{extra}\]'"):
        made.setup(hydra_context=None, task_function=None, config=None)


def test_a_launcher_that_is_not_installed_names_its_extra(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    package, extra = "hydra_joblib_launcher", "joblib"
    conf = tmp_path_factory.mktemp("conf")
    (conf / "hydra" / "launcher").mkdir(parents=True)
    (conf / "hydra" / "launcher" / "mine.yaml").write_text(f"_target_: hydra_plugins.{package}.nowhere.Launcher\n")
    ended = desk.sweep("seed=0,1", f"hydra.searchpath=[file://{conf}]", "hydra/launcher=mine")
    assert ended.code == 2
    assert f"pip install -e '.[{extra}]'" in ended.errors[0]
    assert list(desk.folder.iterdir()) == []
