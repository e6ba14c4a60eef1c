"""The console shows a live bar on a terminal and plain, copyable lines anywhere else."""

import io
import re
from pathlib import Path

import pytest
import rich.console

from tl_experiments.engine.records import EpochRecord, Progress
from tl_experiments.tracking.console import Console, clock, epoch_line, spread


def progress(step: int, *, epoch: int = 1, stage="train", known: bool = True) -> Progress:
    numbers = ((0.5,), (0.9,)) if known else (None, None)
    return Progress("fit", stage, epoch, 3, step, 10, 1234.5, *numbers)


def epoch_record(epoch: int, *, acc: tuple[float, ...] = (0.95,)) -> EpochRecord:
    ones = tuple(1.0 for _ in acc)
    return EpochRecord("fit", epoch, 3, ones, acc, ones, acc, ones, tuple(True for _ in acc), 1234.5, 3.21)


def shown(*, terminal: bool, width: int = 120) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(console=rich.console.Console(file=file, force_terminal=terminal, width=width, highlight=False)), file


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_without_a_terminal_every_epoch_is_one_line_and_nothing_else() -> None:
    console, file = shown(terminal=False)
    with console:
        advance = console.work("loading images")
        for done in range(1, 6):
            advance(done, 5)
        for epoch in (1, 2):
            for step in range(1, 11):
                console.record(progress(step, epoch=epoch))
            console.record(epoch_record(epoch))
    lines = file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["loading images", "epoch 1/3", "epoch 2/3"]
    assert "\x1b" not in file.getvalue()


def test_on_a_terminal_a_bar_shows_epoch_step_numbers_speed_and_time_left() -> None:
    console, file = shown(terminal=True)
    with console:
        console.record(progress(4))
        console.record(progress(5, known=False))  # until the next numbers arrive the last ones stay
        console.notice("a line above the bar")
    text = plain(file.getvalue())
    assert "epoch 1/3 train" in text
    last = text.split("epoch 1/3 train")[-1]
    assert "5/10" in last
    assert "loss 0.5000  acc 0.9000  1,234 img/s" in last
    assert re.search(r"\d:\d\d left", last)
    assert "a line above the bar" in text


def test_the_terminal_gets_its_cursor_back_when_a_run_fails() -> None:
    console, file = shown(terminal=True)
    console.record(progress(1))
    with pytest.raises(ValueError), console:
        raise ValueError
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l")


def test_each_stage_has_a_bar_of_its_own() -> None:
    console, file = shown(terminal=True)
    with console:
        for stage in ("train", "val", "test"):
            console.record(progress(3, stage=stage))
            console.notice("")
    text = plain(file.getvalue())
    assert "epoch 1/3 val" in text
    assert re.search(r"^test ", text, re.MULTILINE)


@pytest.mark.parametrize("terminal", [True, False])
def test_links_and_paths_are_never_wrapped_or_read_as_markup(terminal: bool) -> None:
    console, file = shown(terminal=terminal, width=40)
    link = "http://127.0.0.1:5000/#/experiments/1/runs?searchFilter=" + "x" * 200 + "[b]:smile:"
    folder = Path("/data/" + "long/" * 30)
    console.where(folders=[folder], ui_command="mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db", link=link)
    lines = file.getvalue().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        str(folder),
        "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db",
        link,
    ]


def test_what_is_not_there_is_not_printed() -> None:
    console, file = shown(terminal=False)
    console.where(folders=[Path("/data")], ui_command=None, link=None)
    assert file.getvalue() == "files   /data\n"


def test_the_result_table_shows_every_run_and_only_columns_with_values() -> None:
    console, file = shown(terminal=False, width=20)
    rows = {
        "0 feature lr=0.001": {
            "val/acc_best": 0.9512,
            "val/epoch_best": 7.0,
            "test/acc": 0.9333,
            "perf/seconds": 61.23,
        },
        "1 finetune [lr=0.001]": {"val/acc_best": 0.99, "val/epoch_best": 10.0},
    }
    console.results(rows)
    text = file.getvalue()
    assert re.search(r"0 feature lr=0.001 .*0\.9512 .* 7 .*0\.9333 .*61\.2", text)
    assert "1 finetune [lr=0.001]" in text
    assert "test/loss" not in text


def test_many_members_show_their_range() -> None:
    assert spread((0.5,)) == "0.5000"
    assert spread((0.75, 0.25, 0.5)) == "0.2500–0.7500"
    assert spread((0.5, float("nan"))) == "0.5000 and nan"
    assert spread((float("nan"),)) == "nan"
    assert "val loss 1.0000 acc 0.9000–0.9500" in epoch_line(epoch_record(1, acc=(0.9, 0.95)))


def test_time_reads_as_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 75, 3675)] == ["0:00", "1:00", "1:15", "1:01:15"]


def test_work_without_a_known_end_is_counted() -> None:
    console, file = shown(terminal=True)
    with console:
        advance = console.count("predicting")
        advance(32)
        advance(1_234)
    last = plain(file.getvalue()).split("predicting")[-1]
    assert "1,234 " in last
    assert "/" not in last.replace("img/s", "")
    assert "img/s" in last
    console, file = shown(terminal=False)
    console.count("predicting")(32)
    assert file.getvalue() == "predicting\n"
