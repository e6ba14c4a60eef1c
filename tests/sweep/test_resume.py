"""A sweep goes on after any death: what had finished is not done again, no run is doubled, the results are the same."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweep.conftest import FAULTY, Desk, processes_in
from tests.sweep.faults import RAISES

SWEPT = ("strategy=feature,finetune", "strategy.backbone_lr_scale=1.0,0.1")


@pytest.fixture(scope="module")
def undisturbed(make_desk: Callable[[str], Desk]) -> Desk:
    desk = make_desk("undisturbed")
    ended = desk.sweep(*SWEPT)
    assert ended.code == 0, ended.err
    return desk


def digests(desk: Desk) -> dict[int, str]:
    return {job: result["weights_sha256"] for job, result in desk.results().items()}


def finished(desk: Desk) -> dict[Path, int]:
    """When the result of each finished job was written."""
    plans = list(desk.folder.glob("outputs/sweeps/*/plan.json"))
    return {path: path.stat().st_mtime_ns for plan in plans for path in plan.parent.glob("*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["0/config.yaml", "1/result.json"])
def test_a_killed_sweep_goes_on_to_the_same_results(instant: str, desk: Desk, undisturbed: Desk) -> None:
    process = desk.start(*SWEPT)
    while not any(desk.folder.glob(f"outputs/sweeps/*/{instant}")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = finished(desk)

    ended = desk.sweep("sweep.resume=latest", *SWEPT)

    assert ended.code == 0, ended.err
    assert digests(desk) == digests(undisturbed)
    assert {path: when for path, when in finished(desk).items() if path in before} == before
    runs = desk.runs("run")
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        ("0 feature", "FINISHED"),
        ("1 finetune strategy.backbone_lr_scale=1.0", "FINISHED"),
        ("2 finetune strategy.backbone_lr_scale=0.1", "FINISHED"),
    ]
    assert [run.info.status for run in desk.runs("sweep")] == ["FINISHED"]
    for run in runs:
        history = desk.client.get_metric_history(run.info.run_id, "val/acc")
        assert [point.step for point in history] == [1], "an epoch was logged twice"
    assert processes_in(desk.folder) == []


@pytest.mark.slow
def test_a_finished_sweep_says_so_and_leaves_everything_as_it_is(undisturbed: Desk) -> None:
    before = finished(undisturbed), [(run.info.run_id, run.info.end_time) for run in undisturbed.runs("sweep")]
    ended = undisturbed.sweep("sweep.resume=latest", tiny=False)
    assert ended.code == 0, ended.err
    assert "this sweep is finished, all 3 jobs" in ended.out
    after = finished(undisturbed), [(run.info.run_id, run.info.end_time) for run in undisturbed.runs("sweep")]
    assert after == before


@pytest.mark.slow
def test_what_does_not_agree_with_the_plan_is_refused_and_changes_nothing(undisturbed: Desk) -> None:
    before = undisturbed.ledger()
    ended = undisturbed.sweep("sweep.resume=latest", "strategy=finetune,feature", tiny=False)
    assert ended.code == 2
    [error] = ended.errors
    assert error.startswith("strategy=finetune,feature: the plan of ")
    assert "has strategy=feature,finetune" in error
    assert undisturbed.ledger() == before


@pytest.mark.slow
def test_a_job_that_failed_is_tried_again_in_the_same_run(desk: Desk) -> None:
    assert desk.sweep(*FAULTY, f"seed={RAISES}").code == 1
    [first] = desk.runs("run")
    assert first.data.tags["tl.error"] == "ZeroDivisionError: by design"
    plan = desk.sweep_folder / "plan.json"
    plan.write_text(plan.read_text().replace(f'"seed": {RAISES}', '"seed": 2'))  # the fault is mended
    ended = desk.sweep(f"sweep.resume={desk.sweep_folder}", tiny=False)
    assert ended.code == 0, ended.err
    [again] = desk.runs("run")
    assert (again.info.run_id, again.info.status) == (first.info.run_id, "FINISHED")
    assert "tl.error" not in again.data.tags


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sweep.resume=latest"], "latest: no sweep was planned in"),
        (["sweep.resume=nowhere"], "no sweep was planned here"),
        (["hydra.sweep.dir=taken", "lr=1,2"], "another sweep was planned here"),
    ],
)
def test_there_must_be_one_sweep_to_go_on_with_and_none_to_begin(arguments: list[str], error: str, desk: Desk) -> None:
    (desk.folder / "taken").mkdir()
    (desk.folder / "taken" / "plan.json").write_text("{}")
    ended = desk.sweep(*arguments, tiny=False)
    assert ended.code == 2
    assert error in ended.errors[0]
    assert len(ended.errors) == 1
