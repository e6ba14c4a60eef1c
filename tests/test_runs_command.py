"""`tlx runs`: what is there, newest or best first, from local files alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.finished_runs import copy_run
from tl_experiments.cli.verbs import main

OLD, NEW, PRUNED, FAILED = "a" * 32, "b" * 32, "c" * 32, "d" * 32


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five runs: two finished, of which the older one is better, a pruned one, a failed one, and one without an end."""
    monkeypatch.chdir(tmp_path)
    runs, sweep = tmp_path / "outputs" / "runs", tmp_path / "outputs" / "sweeps" / "s"
    copy_run(runs / "old", uid=OLD, began="2026-01-01T10:00:00+00:00", record={"name": "[b]old[/b]"})
    copy_run(
        sweep / "0", uid=NEW, began="2026-01-02", record={"name": "new"}, result={"val/acc_best": 0.5, "test/acc": 0.25}
    )
    copy_run(sweep / "1", uid=PRUNED, began="2026-01-03", result={"status": "PRUNED", "val/acc_best": 0.999})
    ended = {"status": "FAILED", "val/acc_best": None, "test/acc": None, "test/loss": float("nan")}
    copy_run(runs / "failed", uid=FAILED, began="2026-01-04", result=ended)
    (copy_run(runs / "going", uid="e", began="2026-01-05") / "result.json").unlink()
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    """The cells of the rows that have a folder."""
    assert main(["runs", *options]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "outputs/" in line]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.usefixtures("desk")
def test_the_newest_comes_first_with_its_scores_and_what_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys)
    assert [row[-1] for row in rows] == [
        "outputs/runs/going", "outputs/runs/failed", "outputs/sweeps/s/1", "outputs/sweeps/s/0", "outputs/runs/old",
    ]  # fmt: skip
    assert [row[5] for row in rows] == ["UNFINISHED", "FAILED", "PRUNED", "FINISHED", "FINISHED"]
    assert rows[3][1:5] == ["new", "digits", "test_efficientnet", "finetune"]
    assert rows[3][6:10] == ["0.5000", "0.2500", "7.0", NEW[:8]]
    assert rows[0][6:10] == ["–"] * 4
    assert rows[1][6:8] == ["–"] * 2
    assert rows[4][1] == "[b]old[/b]"


@pytest.mark.usefixtures("desk")
def test_the_best_is_a_finished_one_whatever_a_search_has_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    names = [row[-1] for row in listed(capsys, "--best")]
    assert names[:3] == ["outputs/runs/old", "outputs/sweeps/s/0", "outputs/sweeps/s/1"]


@pytest.mark.usefixtures("desk")
def test_a_folder_a_status_and_a_limit_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row[-1] for row in listed(capsys, "outputs/sweeps/s")] == ["outputs/sweeps/s/1", "outputs/sweeps/s/0"]
    assert [row[-1] for row in listed(capsys, "--status", "failed")] == ["outputs/runs/failed"]
    assert main(["runs", "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "and 3 more: --limit 5 shows all"
    assert main(["runs", "--status", "killed"]) == 0
    assert capsys.readouterr().out.startswith("no KILLED run in ")


def test_programs_get_all_of_them_as_json(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert [run["run_id"] for run in runs] == [None, FAILED, PRUNED, NEW, OLD]
    assert runs[1]["test/loss"] is None, "JSON has no NaN"
    new = runs[3]
    assert Path(new["folder"]) == desk / "outputs" / "sweeps" / "s" / "0"
    assert (new["status"], new["val/acc_best"], new["choices"]["strategy"]) == ("FINISHED", 0.5, "finetune")


@pytest.mark.parametrize(
    ("options", "told"),
    [(("nowhere",), "nowhere: no such folder; expected one of runs"), (("--limit", "0"), "--limit 0: expected 1")],
)
def test_what_is_wrong_is_told_in_one_line(
    options: tuple[str, ...], told: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.is_dir()
    assert main(["runs", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_nothing_heavy_is_imported(desk: Path) -> None:
    look = (
        "import sys; from tl_experiments.cli.verbs import main; main(['runs']); "
        "print([name for name in ('torch', 'mlflow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=desk, capture_output=True, text=True, check=True)
    assert "outputs/sweeps/s/1" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_damaged_file_costs_no_other_run_its_row(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "outputs" / "runs" / "failed" / "run.json").write_text("{")
    (desk / "outputs" / "sweeps" / "s" / "0" / "config.yaml").write_text("a: &x [*x]")
    rows = listed(capsys)
    assert len(rows) == 4
    assert [row[3] for row in rows if row[-1] == "outputs/sweeps/s/0"] == ["timm"]
