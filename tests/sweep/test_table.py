"""The terminal shows the ranking, the failures, the winner and the verdict, whatever the values look like."""

import io
from pathlib import Path

import pytest
import rich.console
from report_fixtures import Sweep

from tl_experiments.sweep.comparison import compare
from tl_experiments.sweep.table import print_comparison


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def printed(sweep: Sweep, *, width: int = 120) -> str:
    file = io.StringIO()
    print_comparison(compare(sweep.plan, outcomes=sweep.outcomes), rich.console.Console(file=file, width=width))
    return file.getvalue()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ \n").replace("┃", "│").split("│")]


def test_rows_are_ranked_with_a_column_for_each_key(sweep: Sweep) -> None:
    sweep.finished({"strategy": "feature"}, val_acc=0.8, test_acc=0.7)
    sweep.finished({"strategy": "finetune", "lr": "0.1"}, val_acc=0.9, test_acc=0.6)
    lines = printed(sweep).splitlines()
    assert cells(lines[1]) == ["rank", "strategy", "lr", "val/acc", "test/acc", "seconds"]
    assert cells(lines[3]) == ["1", "finetune", "0.1", "0.9000", "0.6000", "11.0"]
    assert cells(lines[4]) == ["2", "feature", "–", "0.8000", "0.7000", "10.0"]
    assert "best by val/acc: finetune lr=0.1: val/acc 0.9000, test/acc 0.6000" in lines


def test_seeds_bring_a_column_of_their_number(sweep: Sweep) -> None:
    for seed, acc in enumerate((0.8, 0.9)):
        sweep.finished({"lr": "1", "seed": str(seed)}, val_acc=acc)
    lines = printed(sweep).splitlines()
    assert cells(lines[1]) == ["rank", "lr", "n", "val/acc", "test/acc", "seconds"]
    assert cells(lines[3])[:4] == ["1", "1", "2", "0.8500 ± 0.0707"]


def test_trained_parameters_have_a_column_where_they_differ(sweep: Sweep) -> None:
    sweep.finished({"strategy": "feature"}, val_acc=0.8, num_trained_params=12_810)
    sweep.finished({"strategy": "finetune"}, val_acc=0.9, num_trained_params=None)
    lines = printed(sweep).splitlines()
    assert cells(lines[1])[-1] == "params"
    assert [cells(line)[-1] for line in lines[3:5]] == ["–", "12,810"]


def test_values_are_text_and_no_markup(sweep: Sweep) -> None:
    sweep.finished({"optimizer": "[red]"}, val_acc=0.8)
    sweep.unfinished({"optimizer": "[/]"}, cause="[bold] :boom:")
    text = printed(sweep)
    assert cells(text.splitlines()[3])[1] == "[red]"
    assert "[bold] :boom:" in text
    assert "best by val/acc: [red]" in text


def test_many_keys_share_a_column(sweep: Sweep) -> None:
    for value in "ab":
        sweep.finished({f"key{index}": value for index in range(9)}, val_acc=0.8)
    assert cells(printed(sweep, width=200).splitlines()[1])[:3] == ["rank", "configuration", "val/acc"]


def test_failures_notes_and_verdict_follow(sweep: Sweep) -> None:
    sweep.unfinished({"lr": "1"}, cause="ran out of memory")
    text = printed(sweep)
    assert cells(text.splitlines()[3]) == ["0 lr=1", "FAILED", "ran out of memory"]
    assert "no run finished with a val/acc" in text
    sweep.finished({"lr": "2", "seed": "0"}, val_acc=0.8)
    sweep.unfinished({"lr": "2", "seed": "1"})
    text = printed(sweep)
    assert "note: Not all seeds finished" in text
    assert "Only one configuration has a result" in text


def test_sentences_are_not_broken_where_the_terminal_is_narrow(sweep: Sweep) -> None:
    sweep.finished({"lr": "0.001"}, val_acc=0.8)
    assert "best by val/acc: lr=0.001: val/acc 0.8000, test/acc 0.5000\n" in printed(sweep, width=40)
