"""A sweep goes on after any death: what had finished is not done again, no run is doubled, the results are the same."""

import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweep.conftest import FAULTY, Desk, end_of, processes_in
from tests.sweep.faults import RAISES


@pytest.fixture(scope="module")
def undisturbed(make_desk: Callable[[str], Desk]) -> Desk:
    desk = make_desk("undisturbed")
    ended = desk.sweep(*FAULTY, "seed=0,1")
    assert ended.code == 0, ended.err
    return desk


def kill_at(desk: Desk, instant: str, *arguments: str) -> None:
    """Kill a sweep and all that it started as soon as a file is there."""
    with tempfile.TemporaryDirectory() as logs:
        program = desk.begin(*arguments, logs=Path(logs))
        while not any(desk.folder.glob(f"outputs/sweeps/*/{instant}")):
            assert not program.ended, program.output
            time.sleep(0.01)
        program.signal(signal.SIGKILL)
        assert end_of(program).code == -signal.SIGKILL


def digests(desk: Desk) -> dict[int, str]:
    return {job: result["weights_sha256"] for job, result in desk.results().items()}


def finished(desk: Desk) -> dict[Path, int]:
    """When the result of each job was written that is finished."""
    written = desk.folder.glob("outputs/sweeps/*/*/result.json")
    return {path: path.stat().st_mtime_ns for path in written if '"FINISHED"' in path.read_text()}


@pytest.mark.slow
def test_a_sweep_that_was_killed_and_had_failures_goes_on_to_the_results_of_an_undisturbed_one(
    desk: Desk, undisturbed: Desk
) -> None:
    typed = (*FAULTY, f"seed=0,{RAISES}")
    kill_at(desk, "0/config.yaml", *typed)  # the first job is under way
    kill_at(desk, "1/config.yaml", "sweep.resume=latest", *typed)  # it is done, and the second is under way
    done = finished(desk)
    assert [path.parent.name for path in done] == ["0"]

    ended = desk.sweep("sweep.resume=latest", tiny=False)
    assert ended.code == 2
    assert "runs code of faults.; expected allow_targets=[...] to name it again" in ended.errors[0]
    ended = desk.sweep("sweep.resume=latest", FAULTY[1], tiny=False)
    assert ended.code == 1
    assert f"job 1 seed={RAISES} FAILED: FaultError: by design" in ended.errors[1]
    [failed] = [run for run in desk.runs("run") if run.info.status == "FAILED"]
    assert failed.data.tags["tl.error"] == "FaultError: by design"

    plan = desk.sweep_folder / "plan.json"
    plan.write_text(plan.read_text().replace(f'"seed": {RAISES}', '"seed": 1'))  # the fault is mended
    ended = desk.sweep(f"sweep.resume={desk.sweep_folder}", FAULTY[1], tiny=False)
    assert ended.code == 0, ended.err
    assert "1 of 2 jobs are finished" in ended.out

    assert digests(desk) == digests(undisturbed)
    assert {path: when for path, when in finished(desk).items() if path in done} == done
    runs = desk.runs("run")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert "tl.error" not in desk.client.get_run(failed.info.run_id).data.tags
    assert [run.info.status for run in desk.runs("sweep")] == ["FINISHED"]
    for run in runs:
        history = desk.client.get_metric_history(run.info.run_id, "val/acc")
        assert [point.step for point in history] == [1], "an epoch was logged twice"
    assert processes_in(desk.folder) == []


@pytest.mark.slow
def test_a_finished_sweep_says_so_and_leaves_everything_as_it_is(undisturbed: Desk) -> None:
    before = finished(undisturbed), [(run.info.run_id, run.info.end_time) for run in undisturbed.runs("sweep")]
    ended = undisturbed.sweep("sweep.resume=latest", FAULTY[1], tiny=False)
    assert ended.code == 0, ended.err
    assert "this sweep is finished, all 2 jobs" in ended.out
    after = finished(undisturbed), [(run.info.run_id, run.info.end_time) for run in undisturbed.runs("sweep")]
    assert after == before


@pytest.mark.slow
def test_what_does_not_agree_with_the_plan_is_refused_and_changes_nothing(undisturbed: Desk) -> None:
    before = undisturbed.ledger()
    ended = undisturbed.sweep("sweep.resume=latest", FAULTY[1], "seed=0,2", tiny=False)
    assert ended.code == 2
    [error] = ended.errors
    assert error.startswith("seed=0,2: the plan of ")
    assert "has seed=0,1" in error
    assert undisturbed.ledger() == before


@pytest.mark.slow
def test_a_job_whose_folder_was_removed_is_left_to_do(undisturbed: Desk) -> None:
    removed = undisturbed.sweep_folder / "1"
    kept = removed.rename(removed.with_name("kept"))
    try:
        ended = undisturbed.sweep("sweep.resume=latest", FAULTY[1], "sweep.dry_run=true", tiny=False)
        assert ended.code == 0, ended.err
        assert "1 of 2 jobs are finished" in ended.out
        assert "PLANNED   1 seed=1" in ended.out
        assert not removed.exists()
    finally:
        kept.rename(removed)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sweep.resume=latest", "sweep.n_jobs=0"], "sweep.n_jobs=0: expected 1 to 1024"),
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
