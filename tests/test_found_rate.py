"""`lr=auto` and `tlx lr-find` on real images: what they find, show, and keep when a run goes on."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tl_experiments.cli.verbs import main
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments

SMALL = ("dataset.train_size=100", "epochs=1", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1")


def head_rate(folder: Path) -> float:
    """The head's lr, as the plan has it."""
    [phase] = json.loads((folder / "training_plan.json").read_text(encoding="utf-8"))["phases"]
    [rate] = {part["peak_lr"] for part in phase["parts"] if part["name"] == "head"}
    return rate


def test_a_run_trains_with_the_rate_that_it_found_and_keeps_it_when_it_goes_on(
    make_member: Callable[..., Member],
) -> None:
    member = make_member(*SMALL, "lr=auto")
    [found] = run_experiments([member])
    rate = head_rate(found.folder)
    assert 1e-5 < rate < 1
    curve = found.folder / "lr_finder.csv"
    rates = [float(line.partition(",")[0]) for line in curve.read_text(encoding="utf-8").splitlines()[1:]]
    assert rate in rates
    assert (found.folder / "lr_finder.png").stat().st_size > 10_000
    assert "lr: auto" in (found.folder / "config.yaml").read_text(encoding="utf-8")

    curve.write_text("lr,loss,smoothed\n0.25,2.0,2.0\n0.5,1.0,1.0\n", encoding="utf-8")  # which no test would find
    run_experiments([member])
    assert head_rate(found.folder) == 0.25
    run_experiments([replace(member, uid="another")])  # in the same folder
    assert head_rate(found.folder) == rate


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("grid=strategies", "grid=strategies: a sweep, not one run; "),
        (f"batch_size={'9' * 5000}", ""),
        ("strategy=../../outside", "strategy=../../outside: "),
        ("strategy=knn", "lr=auto: strategy=knn takes no gradient steps; "),
    ],
)
def test_the_command_takes_what_a_run_would_take(
    typed: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lr-find", typed]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def test_the_command_says_the_rate_that_a_run_would_take(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make_member: Callable[..., Member],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lr-find", *SMALL]) == 0
    told = capsys.readouterr()
    said = re.search(r"^lr=(\S+)$", told.out, re.MULTILINE)
    assert said, told
    [picture] = tmp_path.rglob("lr_finder.png")
    assert str(picture.relative_to(tmp_path)) in told.out + told.err
    [run] = run_experiments([make_member(*SMALL, "lr=auto")])
    assert float(said[1]) == pytest.approx(head_rate(run.folder), rel=0.01)
