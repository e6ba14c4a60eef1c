"""A run is found by the names that people give it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.finished_runs import change_json, copy_run
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.tracking.mlflow_tracker import MlflowTracker
from tl_experiments.tracking.named_run import RUNS, SWEEPS, is_run_id, model_folder, run_folder
from tl_experiments.tracking.run_log import RunLog
from tl_experiments.tracking.run_record import FILE, GROUPS, RunRecord
from tl_experiments.tracking.tracker import NullTracker

RUN_ID = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(name: str, *, began: str = "2026-01-01", place: Path = RUNS) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    RunRecord(uid=name, name=name, choices=dict.fromkeys(GROUPS, "x"), sweep_id=None, began=began).save(folder)
    return folder


def end(
    folder: Path, *, val_acc: float, status: str = "FINISHED", uid: str | None = None, run_id: str | None = None
) -> None:
    result = {"uid": uid or folder.name, "status": status, "val/acc_best": val_acc, "run_id": run_id}
    (folder / "result.json").write_text(json.dumps(result))


def test_the_latest_began_last_whatever_its_folder_is_called_and_whatever_lies_beside_it(desk: Path) -> None:
    with pytest.raises(SettingError, match=r"^latest: no run began in .*outputs/runs; expected its folder instead$"):
        run_folder("latest")
    begin("b", began="2026-01-01T00:00:00.000002+00:00")
    begin("a", began="2026-01-01T00:00:00.000003+00:00")
    begin("c", began="2026-01-01T00:00:00.000001+00:00")
    (RUNS / "z").mkdir()  # a run that is just being made
    (RUNS / "spoilt").mkdir()
    (RUNS / "spoilt" / FILE).write_text('{"format": 1')
    assert run_folder("latest") == desk / RUNS / "a"


def test_a_folder_that_is_called_like_an_id_comes_first(desk: Path) -> None:
    assert is_run_id(RUN_ID)
    with pytest.raises(SettingError, match="no such database"):
        run_folder(RUN_ID, tracking_uri=f"sqlite:///{desk / 'none.db'}")
    (desk / RUN_ID).mkdir()
    assert not is_run_id(RUN_ID)
    assert run_folder(RUN_ID) == desk / RUN_ID


@pytest.mark.parametrize("named", ["0123", "runs/a", f"{RUN_ID}0", RUN_ID.upper()])
def test_what_is_no_id_is_a_path(named: str, desk: Path) -> None:
    assert run_folder(named) == desk / named


def test_the_first_digits_of_an_id_name_a_run_in_outputs_without_asking_mlflow(desk: Path) -> None:
    ids = {name: f"abcdef0{digit}".ljust(32, "0") for name, digit in (("a", 1), ("b", 2))}
    for name, run_id in ids.items():
        end(begin(name), val_acc=0.5, run_id=run_id)
    nowhere = f"sqlite:///{desk / 'none.db'}"
    for named in (ids["b"], ids["b"][:8], ids["b"][:20]):
        assert run_folder(named, tracking_uri=nowhere) == desk / RUNS / "b"
    assert run_folder("abcdef0") == desk / "abcdef0", "too few digits"
    end(begin("c"), val_acc=0.5, run_id="abcdef02".ljust(32, "1"))
    with pytest.raises(SettingError, match=r"^abcdef02: the MLflow ids of 2 runs begin so; expected more digits$"):
        run_folder("abcdef02")
    (desk / RUNS / "b" / "model").mkdir()
    (desk / RUNS / "b" / "model" / "model.json").write_text("{}")
    assert model_folder(ids["b"], tracking_uri=nowhere) == desk / RUNS / "b" / "model"
    with pytest.raises(SettingError, match="no such database"):
        model_folder(ids["a"], tracking_uri=nowhere)  # the store may have the model that is gone here


def test_the_best_has_finished_with_the_highest_val_acc(desk: Path) -> None:
    with pytest.raises(SettingError, match=r"^best: .*outputs: no run has finished there; expected"):
        run_folder("best")
    end(begin("a"), val_acc=0.5)
    end(begin("failed"), val_acc=0.99, status="FAILED")
    end(begin("pruned"), val_acc=0.98, status="PRUNED")
    end(begin("other's"), val_acc=0.97, uid="of an earlier run in the same folder")
    begin("unfinished")
    assert run_folder("best") == desk / RUNS / "a"
    end(begin("0", place=SWEEPS / "old"), val_acc=0.8)
    end(begin("0", place=SWEEPS / "new", began="2026-02-01"), val_acc=0.6)
    end(begin("1", place=SWEEPS / "new", began="2026-02-02"), val_acc=0.7)
    assert run_folder("best") == desk / SWEEPS / "old" / "0"
    assert run_folder("best:latest") == desk / SWEEPS / "new" / "1"
    assert run_folder(f"best:{RUNS}") == desk / RUNS / "a"


def test_a_model_is_found_by_its_run_and_by_its_own_folder(desk: Path) -> None:
    folder = begin("a")
    with pytest.raises(SettingError, match=r"^latest: there is no trained model \(it has not finished"):
        model_folder("latest")
    with pytest.raises(SettingError, match=r"^nowhere: there is no trained model \(no such folder\); expected"):
        model_folder("nowhere")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("{}")
    assert (
        model_folder("latest")
        == model_folder(str(folder))
        == model_folder(f"{folder}/model")
        == desk / folder / "model"
    )


def test_a_run_that_takes_the_folder_of_another_takes_no_model_over(desk: Path) -> None:
    folder = copy_run(desk / "run", uid="first")
    for uid, has_model in (("first", True), ("second", False)):  # the first goes on
        record = RunRecord(uid=uid, name=uid, choices=dict.fromkeys(GROUPS, "x"), sweep_id=None, began="2026")
        tracker = NullTracker(run_name=uid, uid=uid, parent_uid=None, folder=folder, tags={})
        log = RunLog(record=record, folder=folder, member=0, num_members=1, tracker=tracker)
        log.begin({}, device="cpu", num_processes=1)
        assert (folder / "predictions.csv").exists() is has_model
        assert (folder / "model").exists() is has_model
    with pytest.raises(SettingError, match="there is no trained model"):
        model_folder(str(folder))


def test_an_id_finds_the_files_of_its_own_run_and_of_no_other(
    make_tracker: Callable[..., MlflowTracker], store_uri: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, cache = f"{desk.name}-first", desk / "caches"
    folder = copy_run(desk / "run", uid=uid)
    with make_tracker(uid, folder=folder) as tracker:
        tracker.set_tags({"tl.run_dir": str(folder)})
        tracker.log_model(folder / "model")
    named = str(tracker.run_id)
    assert run_folder(named, tracking_uri=store_uri) == folder
    assert model_folder(named, tracking_uri=store_uri) == folder / "model"
    change_json(folder / "run.json", {"uid": "second"})
    with pytest.raises(SettingError, match=rf"^{named}: {folder} is no longer this run's; expected"):
        run_folder(named, tracking_uri=store_uri)
    monkeypatch.setenv("TL_CACHE_DIR", str(cache))
    cache.write_text("in the way")
    with pytest.raises(RunFailed, match=r"the model cannot be kept there \(E"):
        model_folder(named, tracking_uri=store_uri)
    cache.unlink()
    fetched = model_folder(named, tracking_uri=store_uri)
    assert fetched == cache / "models" / named
    assert (fetched / "model.json").read_bytes() == (folder / "model" / "model.json").read_bytes()
    with make_tracker(f"{desk.name}-unfinished") as unfinished:
        pass
    with pytest.raises(SettingError, match=r"it has left no model, on this machine or in sqlite.*a run that has fin"):
        model_folder(str(unfinished.run_id), tracking_uri=store_uri)
    assert [path.name for path in (cache / "models").iterdir()] == [named], "nothing is left of what was not there"
