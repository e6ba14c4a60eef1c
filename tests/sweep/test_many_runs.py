"""A sweep of thousands: the page stays one that a browser can show, and nothing takes the square of its length."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from report_fixtures import Sweep
from synthetic_sweep import NUM_TEST, WRONG, make_plan, write_sweep
from ten_thousand_runs import measure_report
from test_report import Reader

from tl_experiments.sweep import comparison as comparing
from tl_experiments.sweep import outcome, planned_configs
from tl_experiments.sweep.comparison import compare
from tl_experiments.sweep.ledger import FAILED, FINISHED, KILLED, PLANNED, RUNNING, Ledger
from tl_experiments.sweep.outcome import any_failed, read_outcomes
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.planned_configs import PlannedConfigs
from tl_experiments.sweep.readme_table import markdown_table
from tl_experiments.sweep.report import charts, cost_charts, mistakes, page
from tl_experiments.sweep.report.charts import REST
from tl_experiments.sweep.report.page import write_report

MOST_RUNS, MOST_ROWS, NUM_ROWS = 4, 5, 8


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = Sweep(tmp_path)
    for number in range(NUM_ROWS):
        for seed in range(2):
            made.finished({"lr": str(number + 1), "seed": str(seed)}, val_acc=0.9 - number / 100, seconds=number)
    return made


def write(sweep: Sweep) -> Reader:
    path = sweep.folder / "report.html"
    write_report(path, comparison=compare(sweep.plan, outcomes=sweep.outcomes), plan=sweep.plan)
    return Reader(path.read_text())


def test_the_best_have_curves_and_points_of_their_own_and_the_rest_is_drawn_together(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(sweep).drawings["plots"]
    assert len(whole["curves-acc"]["traces"]) == 2 * NUM_ROWS
    monkeypatch.setattr(charts, "MOST_RUNS", MOST_RUNS)
    monkeypatch.setattr(cost_charts, "MOST_RUNS", MOST_RUNS)
    monkeypatch.setattr(page, "MOST_ROWS", MOST_ROWS)
    reader = write(sweep)
    traces = reader.drawings["plots"]["curves-acc"]["traces"]
    assert [trace["legendgroup"] for trace in traces] == [REST] * 3 + ["2", "2", "1", "1"]
    low, high, median = (trace["y"][0] for trace in traces[:3])
    assert 0.83 <= low < median < high <= 0.88, "of the runs of rows 3 to 8"
    points = reader.drawings["plots"]["cost-seconds"]["traces"]
    assert [len(trace["x"]) for trace in points] == [NUM_ROWS - MOST_RUNS, *[1] * MOST_RUNS]
    assert "3 to 8: median and middle 80 %" in reader.text
    assert "The first 5 of 8 are shown; all are in results.csv" in reader.text
    assert len([tag for tag, attributes in reader.elements if attributes.get("class") == "fold"]) == MOST_ROWS


def test_what_is_wrong_everywhere_is_asked_of_the_best_runs_alone_where_there_are_too_many(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "by all 16 finished runs." in write(sweep).text
    monkeypatch.setattr(mistakes, "MOST_RUNS", 2)
    assert "by the best 2 runs." in write(sweep).text


def test_twice_the_rows_are_twice_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {}
    for size in (20, 40):
        made = Sweep(tmp_path / str(size))
        for number in range(size):
            made.finished({"lr": str(number + 1)}, val_acc=number / 100)
        counted = SimpleNamespace(number=0)
        spread, shown = comparing._spread, comparing.Row.shown

        def count(*arguments: Any, of: Any = spread, counted: SimpleNamespace = counted) -> Any:
            counted.number += 1
            return of(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(comparing, "_spread", count)
            patch.setattr(comparing.Row, "shown", lambda row, key, of=shown, count=count: count(row, key, of=of))
            write(made)
            markdown_table(compare(made.plan, outcomes=made.outcomes))
        calls[size] = counted.number
    assert calls[40] <= 2.2 * calls[20], calls


def test_the_ledger_tells_of_some_jobs_what_it_tells_of_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(*({"job": job, "state": RUNNING} for job in range(30)))
    ledger.append({"job": 3, "state": FAILED, "cause": 'said "job": 7, and died'}, {"job": 13, "state": FINISHED})
    every = ledger.last()
    for asked in ([3], [1, 13], [7], [99], []):
        assert ledger.last(of=asked) == {job: every[job] for job in asked if job in every}


def test_whether_a_job_failed_is_asked_of_the_ledger_and_not_of_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, ledger, read = make_plan(30, folder=tmp_path), Ledger(tmp_path), []
    monkeypatch.setattr(outcome, "read_result", lambda folder: read.append(folder.name) or {})
    ledger.append(*({"job": job, "state": RUNNING} for job in range(30)), {"job": 3, "state": FAILED})
    ledger.append({"job": 3, "state": RUNNING}, {"job": 4, "state": FINISHED}, {"job": 5, "state": PLANNED})
    assert not any_failed(plan, tmp_path), "one that is run again, or was pre-empted, has not failed"
    assert read == []
    ledger.append({"job": 7, "state": KILLED})
    assert any_failed(plan, tmp_path)
    assert read == ["7"]
    whole = {"status": "FINISHED", "uid": plan.jobs[7].uid}
    monkeypatch.setattr(outcome, "read_result", lambda _: whole)
    assert not any_failed(plan, tmp_path), "a result that is whole says more"


def test_a_plan_is_read_once_for_all_jobs_that_are_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, reads = make_plan(6, folder=tmp_path), []
    plan.save(tmp_path)
    load = Plan.load
    monkeypatch.setattr(planned_configs.Plan, "load", lambda folder: reads.append(folder) or load(folder))
    master = OmegaConf.create({"sweep": {"group": None}, "hydra": {"sweep": {}, "overrides": {}, "runtime": {}}})
    OmegaConf.update(master, "hydra.runtime.choices", {})
    configs = PlannedConfigs(tmp_path)
    folders = [configs.load_sweep_config(master, [f"sweep.group={group}"]).hydra.sweep.subdir for group in range(6)]
    assert (folders, len(reads)) == ([str(index) for index in range(6)], 1)
    (tmp_path / "plan.json").unlink()
    make_plan(7, folder=tmp_path).save(tmp_path)  # as a search does after each batch
    assert configs.load_sweep_config(master, ["sweep.group=6"]).hydra.sweep.subdir == "6"


def test_the_benchmark_measures_sweeps_that_a_report_reads(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    write_sweep(make_plan(20, folder=folder), folder)
    figures = measure_report(folder, 0)
    assert figures["report.html, MiB"] > 4
    assert f"{WRONG} of {NUM_TEST} test images were classified wrongly" in (folder / "report.html").read_text()
    outcomes = read_outcomes(Plan.load(folder), folder, of=[19, 4])
    assert [outcome.job.index for outcome in outcomes] == [19, 4]
