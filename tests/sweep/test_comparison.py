"""Seeds become one row, val alone ranks, and whatever happened to a job can be read."""

import csv
import math
from pathlib import Path

import pytest
from report_fixtures import Sweep

from tl_experiments.sweep.comparison import Comparison, compare


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, overrides=("+strategy=finetune", "lr=0.1,0.01", "seed=0,1"))


def compared(sweep: Sweep) -> Comparison:
    return compare(sweep.plan, outcomes=sweep.outcomes)


def test_runs_that_differ_by_seed_are_one_row(sweep: Sweep) -> None:
    for lr, accuracies in {"0.1": (0.6, 0.8), "0.01": (0.9, 0.9)}.items():
        for seed, acc in enumerate(accuracies):
            sweep.finished({"strategy": "finetune", "lr": lr, "seed": str(seed)}, val_acc=acc, test_acc=acc - 0.1)
    comparison = compared(sweep)
    assert [(row.rank, row.label) for row in comparison.rows] == [(1, "finetune lr=0.01"), (2, "finetune lr=0.1")]
    second = comparison.rows[1]
    assert second.val_acc is not None
    assert (second.val_acc.mean, second.val_acc.sd, second.val_acc.n) == (
        pytest.approx(0.7), pytest.approx(0.2 / 2**0.5), 2,
    )  # fmt: skip
    assert second.test_acc is not None
    assert second.test_acc.mean == pytest.approx(0.6)
    assert second.best.job.index == 1
    assert comparison.keys == ("strategy", "lr")
    assert "± " in comparison.winner_sentence()


def test_val_chooses_the_winner_and_test_has_no_say(sweep: Sweep) -> None:
    sweep.finished({"lr": "0.1"}, val_acc=0.8, test_acc=0.9)
    sweep.finished({"lr": "0.01"}, val_acc=0.9, test_acc=0.1)
    comparison = compared(sweep)
    assert comparison.winner_sentence() == "best by val/acc: lr=0.01: val/acc 0.9000, test/acc 0.1000"


def test_equal_val_acc_is_ranked_by_val_loss_then_by_plan(sweep: Sweep) -> None:
    for lr, losses in {"1": (0.9, 0.5), "2": (0.1, 0.4), "3": (0.9, 0.4), "4": (None, None)}.items():
        sweep.finished({"lr": lr}, val_acc=0.8, val_losses=losses)
    assert [row.values["lr"] for row in compared(sweep).rows] == ["2", "3", "1", "4"]


def test_a_run_that_diverged_is_last_and_noted(sweep: Sweep) -> None:
    sweep.finished({"lr": "9"}, val_acc=None, test_acc=math.nan, val_losses=(None, None))
    sweep.finished({"lr": "1"}, val_acc=0.1)
    comparison = compared(sweep)
    assert [row.values["lr"] for row in comparison.rows] == ["1", "9"]
    assert comparison.rows[1].val_acc is comparison.rows[1].test_acc is None
    assert any("not a finite number" in note and "0 lr=9" in note for note in comparison.notes)
    assert "Only one configuration" in comparison.verdict.sentence


def test_what_did_not_finish_is_apart_and_its_row_says_that_it_lacks_seeds(sweep: Sweep) -> None:
    sweep.finished({"lr": "1", "seed": "0"}, val_acc=0.5)
    sweep.unfinished({"lr": "1", "seed": "1"}, cause="out of memory")
    sweep.unfinished({"lr": "2", "seed": "0"}, state="KILLED", cause=None)
    comparison = compared(sweep)
    [row] = comparison.rows
    assert (len(row.outcomes), row.num_planned) == (1, 2)
    assert [(outcome.state, outcome.cause) for outcome in comparison.unfinished] == [
        ("FAILED", "out of memory"),
        ("KILLED", None),
    ]
    assert any("lr=1 (1 of 2)" in note for note in comparison.notes)


def test_nothing_finished_or_only_one_job(sweep: Sweep, tmp_path: Path) -> None:
    sweep.unfinished({"lr": "1"})
    comparison = compared(sweep)
    assert (comparison.rows, comparison.winner, comparison.verdict.different) == ((), None, None)
    assert "no run finished" in comparison.winner_sentence()
    single = Sweep(tmp_path / "single", overrides=("strategy=finetune", "tracking=none"))
    single.finished({}, val_acc=0.5)
    assert compared(single).rows[0].label == "finetune"


def test_the_first_two_rows_are_judged_only_on_the_same_images(sweep: Sweep) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.9, test_acc=1.0)
    sweep.finished({"lr": "2"}, val_acc=0.8, test_acc=0.5, said=("cat", "cat", "cat", "owl"))
    verdict = compared(sweep).verdict
    assert verdict.p_value == pytest.approx(0.5)
    assert "2 only the former gets right and 0 only the latter" in verdict.sentence
    sweep.finished({"lr": "3"}, val_acc=0.85, images=["other/0", "other/1", "other/2", "other/3"])
    assert compared(sweep).verdict.different is None
    assert "different images" in compared(sweep).verdict.sentence


def test_data_that_changed_under_the_same_settings_is_told(sweep: Sweep) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.9)
    sweep.finished({"lr": "2"}, val_acc=0.8, dataset_fingerprint="other")
    comparison = compared(sweep)
    assert any("the data changed" in note for note in comparison.notes)
    assert comparison.verdict.different is None


def test_other_settings_of_the_data_are_no_change_of_the_data(sweep: Sweep) -> None:
    sweep.finished({"dataset.train_size": "9"}, val_acc=0.9, config={"dataset": {"train_size": 9}})
    sweep.finished(
        {"dataset.train_size": "99"}, val_acc=0.8, config={"dataset": {"train_size": 99}}, dataset_fingerprint="e"
    )
    assert compared(sweep).notes == ()


def test_other_machines_versions_and_tasks_are_told(sweep: Sweep) -> None:
    sweep.finished({"lr": "1"}, val_acc=0.9, versions={"torch": "2.11"})
    sweep.finished({"lr": "2"}, val_acc=0.8, versions={"torch": "2.12"}, device="NVIDIA H100", git_commit="abc")
    sweep.finished({"lr": "3"}, val_acc=0.7, config={"dataset": {"_target_": "x", "root": "/data"}})
    notes = "\n".join(compared(sweep).notes)
    assert "NVIDIA H100; cpu" in notes
    assert "torch 2.11; torch 2.12" in notes
    assert "different datasets" in notes
    assert "different machines" not in notes
    assert "commits" not in notes


def test_rows_whose_seed_reaches_further_keep_names_of_their_own(sweep: Sweep) -> None:
    for seed in "01":
        sweep.finished({"lr": "1", "seed": seed}, val_acc=0.9, config={"dataset": {"split_seed": int(seed)}})
    assert [row.label for row in compared(sweep).rows] == ["lr=1 seed=0", "lr=1 seed=1"]


def test_paths_that_end_alike_keep_names_of_their_own(sweep: Sweep) -> None:
    for root in ("/old/birds", "/new/birds"):
        sweep.finished({"dataset.root": root}, val_acc=0.9)
    assert [row.label for row in compared(sweep).rows] == ["dataset.root=/old/birds", "dataset.root=/new/birds"]


def test_results_csv_has_a_line_for_each_job(sweep: Sweep, tmp_path: Path) -> None:
    sweep.finished({"strategy": "feature", "seed": "3"}, val_acc=0.9, test_acc=0.8, test__ece=0.25)
    sweep.unfinished({"strategy": "finetune", "lr": "1", "seed": "3"}, cause='bad, "worse"\nlines')
    compared(sweep).write_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "index": "0", "name": "0 strategy=feature seed=3", "state": "FINISHED", "strategy": "feature", "lr": "",
        "seed": "3", "val/acc_best": "0.9", "val/epoch_best": "2", "test/acc": "0.8", "test/loss": "0.7",
        "test/acc_top5": "", "test/f1_macro": "", "test/acc_balanced": "", "test/ece": "0.25", "val/temperature": "",
        "test/ece_calibrated": "", "test/loss_calibrated": "",
        "perf/seconds": "10.0", "num_trained_params": "1000", "num_train_images": "500", "run_id": "run-0", "cause": "",
    }  # fmt: skip
    assert (second["state"], second["lr"], second["val/acc_best"]) == ("FAILED", "1", "")
    assert second["cause"] == 'bad, "worse"\nlines'
