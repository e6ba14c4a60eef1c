"""A search from the command line: jobs come one by one, hopeless ones are stopped, nothing is lost by a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Program, server
from tests.sweep.conftest import ROOT, Desk

pytest.importorskip("optuna")

SEARCH = (
    *("-m", "hydra/sweeper=optuna", "lr=tag(log, interval(1e-5,1e-1))", "optimizer.weight_decay=choice(0,1e-2)"),
    *("hydra.sweeper.num_trials=5", "hydra.sweeper.min_trials=2", "hydra.sweeper.n_startup_trials=3"),
)
TINY = (
    *("dataset.train_size=100", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1", "epochs=4"),
    *("hydra.sweep.dir=sweep", "checkpoint.keep_when_finished=false"),
)


def typed(desk: Path, *arguments: str) -> Program:
    """Type a command, and wait for its end."""
    program = server().start(*arguments, cwd=desk)
    program.wait()
    return program


def errors(program: Program) -> list[str]:
    return [line.removeprefix("error: ") for line in program.output.splitlines() if line.startswith("error: ")]


def results(sweep: Path) -> dict[int, dict[str, Any]]:
    return {int(path.parent.name): json.loads(path.read_text()) for path in sweep.glob("*/result.json")}


def bits(sweep: Path) -> dict[int, Any]:
    """What must be the same of two searches: what was tried, how far it came, every epoch, and the weights."""
    epochs = {
        int(path.parent.name): [
            {key: value for key, value in json.loads(line).items() if not key.startswith("perf/")}
            for line in path.read_text().splitlines()
        ]
        for path in sweep.glob("*/metrics.jsonl")
    }
    kept = ("name", "status", "val/acc_best", "val/epoch_best", "test/acc", "weights_sha256")
    return {job: ({key: result.get(key) for key in kept}, epochs[job]) for job, result in results(sweep).items()}


@pytest.fixture(scope="module")
def searched(make_desk: Any) -> tuple[Desk, Program]:
    desk = make_desk("searched")
    program = typed(desk.folder, *SEARCH, *TINY)
    assert program.code == 0, program.output
    return desk, program


@pytest.mark.slow
def test_a_pruned_job_ends_well_keeps_its_epochs_and_is_not_tested(searched: tuple[Desk, Program]) -> None:
    desk, program = searched
    ended = results(desk.folder / "sweep")
    pruned = {job for job, result in ended.items() if result["status"] == "PRUNED"}
    assert len(ended) == 5
    assert 1 <= len(pruned) <= 3
    for job in pruned:
        folder = desk.folder / "sweep" / str(job)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) < ended[job]["num_epochs"] == 4
        assert ended[job]["val/acc_best"] == max(row["val/acc"] for row in rows)
        assert "test/acc" not in ended[job]
        assert not (folder / "model").exists()
    ledger = [json.loads(line) for line in (desk.folder / "sweep" / "ledger.jsonl").read_text().splitlines()]
    assert {entry["job"] for entry in ledger if entry["state"] == "PRUNED"} == pruned
    runs = {run.info.run_name: run for run in desk.runs("run")}
    for job, result in ended.items():
        run = runs[result["name"]]
        assert run.info.status == "FINISHED"
        assert (run.data.tags.get("tl.pruned") == "true") == (job in pruned)
        assert run.data.metrics["val/acc_best"] == result["val/acc_best"]
        assert ("test/acc" in run.data.metrics) == (job not in pruned)
    assert f"5 jobs, {len(pruned)} pruned: " in program.output


@pytest.mark.slow
def test_the_sweeps_run_says_what_was_searched_and_the_report_how(searched: tuple[Desk, Program]) -> None:
    desk, _ = searched
    parent = desk.parent()
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {
        "lr": "1e-05 to 0.1, logarithmic",
        "optimizer.weight_decay": "0, 0.01",
        "search.sampler": "tpe",
        "search.pruner": "median",
        "search.seed": "0",
    }
    finished = [r["val/acc_best"] for r in results(desk.folder / "sweep").values() if r["status"] == "FINISHED"]
    assert parent.data.metrics["val/acc_best"] == max(finished)
    page = (desk.folder / "sweep" / "report.html").read_text()
    assert 'data-plot="search"' in page
    assert page.count('<span class="state pruned">') == 5 - len(finished)
    assert "Not finished" not in page
    assert (desk.folder / "sweep" / "study.journal").stat().st_size > 0


@pytest.mark.slow
def test_a_search_that_is_killed_twice_ends_with_the_same_bits(searched: tuple[Desk, Program], tmp_path: Path) -> None:
    desk, _ = searched
    command = (*SEARCH, *TINY, "tracking=none")
    for job in (1, 3):
        program = server().start(*command, cwd=tmp_path)
        while not (tmp_path / "sweep" / str(job) / "config.yaml").exists():
            assert not program.ended, program.output
            time.sleep(0.005)
        program.signal(signal.SIGKILL)
        program.wait()
        command = ("-m", f"sweep.resume={tmp_path / 'sweep'}")  # the sweep is what its folder says
    ended = {job: tmp_path / "sweep" / str(job) / "result.json" for job in range(3)}
    done = {job: path.stat().st_mtime_ns for job, path in ended.items() if path.exists()}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = typed(elsewhere, *command)
    assert program.code == 0, program.output
    assert bits(tmp_path / "sweep") == bits(desk.folder / "sweep")
    assert len(done) == 3
    assert {job: path.stat().st_mtime_ns for job, path in ended.items()} == done


@pytest.mark.slow
def test_a_search_that_has_ended_goes_on_with_more_trials(searched: tuple[Desk, Program]) -> None:
    desk, _ = searched
    before = bits(desk.folder / "sweep")
    more = ("-m", "hydra/sweeper=optuna", f"sweep.resume={desk.folder / 'sweep'}")
    program = typed(desk.folder, *more, "hydra.sweeper.num_trials=6", "hydra.sweeper.seed=3")
    assert errors(program) == ["hydra.sweeper.seed=3: the plan of sweep has 0; leave it out, or search anew"]
    elsewhere = desk.folder / "elsewhere"  # its runs are tracked where they were
    elsewhere.mkdir()
    program = typed(elsewhere, *more, "hydra.sweeper.num_trials=6")
    assert program.code == 0, program.output
    after = bits(desk.folder / "sweep")
    assert len(after) == 6
    assert {job: after[job] for job in before} == before
    assert len(desk.runs("run")) == 6
    assert desk.parent().info.status == "FINISHED"


@pytest.mark.slow
def test_failures_repeats_and_jobs_side_by_side(tmp_path: Path) -> None:
    """The space has two configurations; asked together, they are both tried, one fails, and the search ends."""
    search = ("-m", "hydra/sweeper=optuna", "lr=1e-3,1e38", "hydra.sweeper.num_trials=9", "sweep.n_jobs=2")
    program = typed(tmp_path, *search, *TINY, "optimizer=sgd", "tracking=none")
    assert program.code == 1, program.output
    assert errors(program)[0] == "1 of 2 jobs did not finish"
    plan = json.loads((tmp_path / "sweep" / "plan.json").read_text())
    assert sorted(job["values"]["lr"] for job in plan["jobs"]) == ["0.001", "1e+38"]
    assert plan["search"]["starts"] == [0, 2]
    assert [result["status"] for result in results(tmp_path / "sweep").values()].count("FINISHED") == 1


def test_a_dry_run_prints_the_space_and_a_first_batch_and_makes_nothing(tmp_path: Path) -> None:
    space = ("strategy=feature,finetune", "strategy.backbone_lr_scale=0.1,1", "sweep.n_jobs=3")
    program = typed(tmp_path, *SEARCH, *space, "sweep.dry_run=true")
    assert program.code == 0, program.output
    lines = program.output.splitlines()
    assert "  search    5 jobs: sampler tpe, 3 random first, pruner median, seed 0" in lines
    assert "  space     lr: 1e-05 to 0.1, logarithmic" in lines
    firsts = [line for line in lines if line.startswith("  first ")]
    assert len(firsts) == 3
    assert all(("backbone_lr_scale" in line) == ("finetune" in line) for line in firsts)
    assert [path.name for path in tmp_path.iterdir()] == [program.log.name]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("lr=interval(-1,1)",), "lr=-1.0: lr=-1.0: expected a number above 0"),
        (("lr=interval(1,2)", "hydra.sweeper.num_trials=0"), "hydra.sweeper.num_trials=0: expected 1 to 1000000"),
        (("lr=interval(1,2)", "hydra.sweeper.pruner=mean"), "mean"),
        (("lr=1e-3",), "nothing to search"),
        (("lr=interval(1,2)", "epochs=3", "scheduler.warmup_epochs=1,5"), "scheduler.warmup_epochs=5.0: expected less"),
        (("seed=0,1", "hydra.sweep.subdir=same"), "hydra.sweep.subdir=same: the same folder for"),
    ],
)
def test_what_cannot_be_searched_is_told_before_anything_is_made(
    arguments: tuple[str, ...], error: str, tmp_path: Path
) -> None:
    program = typed(tmp_path, "-m", "hydra/sweeper=optuna", *arguments)
    assert program.code == 2, program.output
    assert error in errors(program)[0]
    assert [path.name for path in tmp_path.iterdir()] == [program.log.name]


def test_without_optuna_its_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    command = [sys.executable, str(ROOT / "run.py"), *SEARCH]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.endswith("Optuna is not installed; install it by: pip install -e '.[optuna]'")
