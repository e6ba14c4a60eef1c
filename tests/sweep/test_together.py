"""Jobs that one process trains together are runs like others: apart in files, equal in bits, failing alone."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime

import pytest
import yaml

from tests.commands import Ended
from tests.sweep.conftest import Desk

RATES = (1e-3, 1e-2, 3e-3, 1e30)
MODEL = {"manifest.json", "model.json", "model.safetensors", "README.md"}
EXAMPLES = {f"example-{number}.png" for number in range(1, 5)}
DIVERGES = 3  # the job that has the last of these rates
CAUSE = "the training loss is not finite in epoch 1"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(make_desk: Callable[[str], Desk]) -> tuple[Desk, Ended]:
    """Three sound jobs and one whose rate is far too large."""
    desk = make_desk("together")
    return desk, desk.sweep("seed=0", f"lr={','.join(map(str, RATES))}")


def test_one_process_runs_them_all(together: tuple[Desk, Ended]) -> None:
    desk, ended = together
    lines = ended.out.splitlines()
    assert lines[0] == f"plan: 4 jobs in 1 process, {desk.sweep_folder}"
    assert "  together  jobs 0-3: one pass of the backbone, 4 heads side by side" in lines
    assert json.loads((desk.sweep_folder / "plan.json").read_text())["groups"] == [[0, 1, 2, 3]]
    assert [path.parent.name for path in desk.sweep_folder.glob("*/job.log")] == ["0"]
    assert ended.out.count("4 heads together") == 1


def test_each_has_its_own_files_and_its_own_run(together: tuple[Desk, Ended]) -> None:
    desk, _ = together
    runs, results = desk.runs("run"), desk.results()
    assert len({run.info.run_id for run in runs}) == len(RATES)
    for job, (rate, run) in enumerate(zip(RATES, runs, strict=True)):
        folder, result = desk.sweep_folder / str(job), results[job]
        assert yaml.safe_load((folder / "config.yaml").read_text())["lr"] == rate
        assert yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["lr"] == rate
        assert yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())[-1] == f"lr={rate}"
        assert (result["run_id"], result["uid"]) == (run.info.run_id, run.data.tags["tl.uid"])
        assert float(run.data.params["lr"]) == rate
        assert run.data.tags["tl.run_dir"] == str(folder)
        if job == DIVERGES:
            continue
        [epoch] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert run.data.metrics["val/acc"] == epoch["val/acc"]
        assert run.data.metrics["test/acc"] == result["test/acc"]
        assert {path.name for path in (folder / "model").iterdir()} == MODEL | EXAMPLES
        assert {"model", "result.json"} <= {file.path for file in desk.client.list_artifacts(run.info.run_id)}
    assert len({result.get("weights_sha256") for result in results.values()}) == len(RATES)
    assert desk.parent().info.status == "FAILED"


def test_time_that_is_spent_together_is_shared(together: tuple[Desk, Ended]) -> None:
    desk, _ = together
    entries = [entry for entry in desk.ledger() if entry["state"] in ("RUNNING", "FINISHED")]
    assert sum(desk.results()[job]["seconds"] for job in range(DIVERGES)) < seconds_between(entries)


def seconds_between(entries: list[dict]) -> float:
    first, *_, last = (datetime.fromisoformat(entry["time"]) for entry in entries)
    return (last - first).total_seconds() + 1  # times are whole seconds


def test_one_that_diverges_fails_alone_and_the_end_names_it(together: tuple[Desk, Ended]) -> None:
    desk, ended = together
    assert ended.code == 1, ended.err
    summary, line, way_on = ended.errors
    assert summary == "1 of 4 jobs did not finish"
    assert line.startswith(f"job 3 lr=1e+30 FAILED: {CAUSE}")
    assert line.endswith(f"; log {desk.sweep_folder / '0' / 'job.log'}")
    assert way_on == f"to go on: python run.py -m sweep.resume={desk.sweep_folder}"
    runs, states = desk.runs("run"), ["FINISHED"] * DIVERGES + ["FAILED"]
    assert [run.info.status for run in runs] == states
    assert [desk.results()[job]["status"] for job in range(len(RATES))] == states
    last = {entry["job"]: entry for entry in desk.ledger()}
    assert [last[job]["state"] for job in range(len(RATES))] == states
    assert last[DIVERGES]["cause"].startswith(CAUSE)
    assert runs[DIVERGES].data.tags["tl.error"].startswith(f"RunFailed: {CAUSE}")
    assert not [run for run in runs[:DIVERGES] if "tl.error" in run.data.tags]


def test_what_is_left_of_a_group_goes_on_alone(together: tuple[Desk, Ended]) -> None:
    """This comes last: it changes the sweep."""
    desk, _ = together
    before = {path: path.stat().st_mtime_ns for path in desk.sweep_folder.glob("[012]/result.json")}
    failed = desk.runs("run")[DIVERGES].info
    plan = desk.sweep_folder / "plan.json"
    plan.write_text(plan.read_text().replace('"lr": 1e+30', '"lr": 0.003'))  # the fault is mended
    shutil.rmtree(desk.sweep_folder / "0" / "checkpoints")  # which are those of the plan as it was
    ended = desk.sweep("sweep.resume=latest", tiny=False)
    assert ended.code == 0, ended.err
    assert "3 of 4 jobs are finished" in ended.out
    assert "heads together" not in ended.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert desk.results()[DIVERGES]["weights_sha256"] == desk.results()[2]["weights_sha256"]  # which has this rate
    runs = desk.runs("run")
    assert [run.info.status for run in runs] == ["FINISHED"] * len(RATES)
    assert runs[DIVERGES].info.run_id == failed.run_id
    assert desk.parent().info.status == "FINISHED"
