"""`tlx show`: one run on one screen, whatever has become of it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.finished_runs import copy_run
from tl_experiments.cli.verbs import main, make_parser

UID = "0123456789abcdef" * 2


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy_run(tmp_path / "outputs" / "runs" / "it's", uid=UID, record={"name": "[b]mine[/b]"})


def shown(capsys: pytest.CaptureFixture[str], named: str) -> str:
    assert main(["show", named]) == 0
    return capsys.readouterr().out


def value(text: str, name: str) -> str:
    """What stands behind a name, which is there once."""
    (found,) = re.findall(rf"  {re.escape(name)}  +(\S.*?)(?:   |$)", text, re.MULTILINE)
    return found


@pytest.mark.usefixtures("run")
def test_a_finished_run_tells_all_that_people_ask(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "latest")
    assert text.startswith("[b]mine[/b]\n")
    assert {name: value(text, name) for name in ("status", "test/acc", "lr", "strategy.batchnorm", "temperature")} == {
        "status": "FINISHED, 6 of 6 epochs",
        "test/acc": "0.98607",
        "lr": "0.003",
        "strategy.batchnorm": "train",
        "temperature": "0.6024",
    }
    assert value(text, "training images") == "1,295"
    assert value(text, "classes") == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert value(text, "input") == "32 px of 32, bicubic"
    assert value(text, "weights") == "426.1 kB"
    assert "outputs/runs/it's: config.yaml, metrics.jsonl, model, predictions.csv" in text
    assert f"{UID} in sqlite:///" in text
    assert len(text.splitlines()) <= 60, "one screen"


def test_the_commands_to_go_on_with_can_be_typed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(run))
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  tlx ")]
    assert {"predict", "export", "serve", "reproduce"} <= {command[1] for command in commands}
    named = "outputs/runs/it's"
    assert all(command[2] == named for command in commands if command[1] != "ui")
    make_parser().parse_args(next(command[1:] for command in commands if command[1] == "reproduce"))


@pytest.mark.parametrize("named", [UID, UID[:8], "outputs/runs/it's/model", "best"])
def test_it_is_found_by_what_names_it(named: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.is_dir()
    assert shown(capsys, named).startswith("[b]mine[/b]\n")


def test_json_has_the_same_for_programs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["run_id"], told["scores"]["test/acc"]) == ("FINISHED", UID, 0.9860724233983287)
    assert told["settings"]["runtime.infer_precision"] == "fp32"
    assert told["model"]["class_names"] == [str(digit) for digit in range(10)]
    assert (told["folder"], "predictions.csv" in told["files"]) == (str(run), True)


def test_a_run_that_has_not_ended_tells_how_to_go_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "result.json").unlink()
    shutil.rmtree(run / "model")
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(rows[:2]) + rows[2][:20])
    text = shown(capsys, str(run))
    assert value(text, "status") == "UNFINISHED: 2 of 6 epochs so far"
    assert value(text, "val/acc_best") == "0.97902"
    assert shlex.split(text.splitlines()[-1]) == ["python", "run.py", "resume=outputs/runs/it's"]
    assert "tlx predict" not in text


def test_jobs_of_sweeps_go_on_with_their_sweep_and_failures_tell_their_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = {"status": "FAILED", "error": "RunFailed: out of memory\nmore"}
    folder = copy_run(tmp_path / "sweep" / "0", uid=UID, record={"sweep_id": "s"}, result=failed)
    shutil.rmtree(folder / "model")
    text = shown(capsys, str(folder))
    assert value(text, "status") == "FAILED after 6 of 6 epochs: RunFailed: out of memory"
    assert text.splitlines()[-1] == "  python run.py -m sweep.resume=sweep"
    (folder / "result.json").write_text(json.dumps({"uid": UID, "status": "PRUNED"}))
    text = shown(capsys, str(folder))
    assert "PRUNED: its search stopped it" in text
    assert "resume" not in text


def test_what_is_damaged_is_named_and_the_rest_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text("a: [")
    (run / "model" / "model.json").write_text("{}")
    text = shown(capsys, str(run))
    assert text.count("  problem  ") == 2
    assert value(text, "test/acc") == "0.98607"


def test_a_model_that_has_left_its_run_speaks_for_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run / "model", "model")
    text = shown(capsys, "model")
    assert value(text, "pretrained") == "random(seed=0)"
    assert "  tlx predict model IMAGES --output predictions.csv" in text.splitlines()


@pytest.mark.usefixtures("run")
def test_no_run_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for named in ("nowhere", "abcdef0123"):
        assert main(["show", named]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{named}: no run began here" in line
