"""A run is found by the names that people give it."""

from pathlib import Path

import pytest

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.named_run import RUNS, is_run_id, run_folder
from tl_experiments.tracking.run_record import FILE, GROUPS, RunRecord

RUN_ID = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(name: str, *, began: str) -> None:
    folder = RUNS / name
    folder.mkdir(parents=True)
    RunRecord(uid=name, name=name, choices=dict.fromkeys(GROUPS, "x"), sweep_id=None, began=began).save(folder)


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
