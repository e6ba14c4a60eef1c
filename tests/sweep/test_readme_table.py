"""The Markdown table of a sweep: cells that a README can take as they are."""

from pathlib import Path

import pytest
from report_fixtures import Sweep

from tl_experiments.sweep.comparison import compare
from tl_experiments.sweep.readme_table import markdown_table


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def table(sweep: Sweep) -> list[str]:
    return markdown_table(compare(sweep.plan, outcomes=sweep.outcomes)).splitlines()


def test_rows_are_best_first_by_val_with_spread_and_cost(sweep: Sweep) -> None:
    for strategy, params, base in (("feature", 12_810, 0.8), ("finetune", 3_383_834, 0.9)):
        for seed in "01":
            acc = base + 0.01 * int(seed)
            sweep.finished(
                {"strategy": strategy, "seed": seed}, val_acc=acc, test_acc=acc - 0.5, num_trained_params=params
            )
    assert table(sweep) == [
        "| strategy | val/acc | test/acc | trained parameters | seconds |",
        "| :-- | --: | --: | --: | --: |",
        "| finetune | 0.9050 ± 0.0071 | 0.4050 ± 0.0071 | 3,383,834 | 12.5 ± 0.7 |",
        "| feature | 0.8050 ± 0.0071 | 0.3050 ± 0.0071 | 12,810 | 10.5 ± 0.7 |",
        "",
        "Best first by val/acc, which also chose the epoch of each run; test/acc had no say. "
        "Mean ± standard deviation over 2 seeds.",
    ]


def test_numbers_of_images_and_of_seeds_have_columns_where_they_differ(sweep: Sweep) -> None:
    for size, seed, images in (("0.1", "0", 50), ("0.1", "1", 50), ("1.0", "0", 1500)):
        sweep.finished({"dataset.train_size": size, "seed": seed}, val_acc=0.8, num_train_images=images)
    header, _, *rows = table(sweep)
    assert header.startswith("| dataset.train_size | training images | seeds | val/acc |")
    assert [row.split(" | ")[1:3] for row in rows[:2]] == [["50", "2"], ["1,500", "1"]]
    assert rows[-1].endswith("Mean ± standard deviation over seeds.")


def test_cells_are_text_and_what_is_not_known_a_dash(sweep: Sweep) -> None:
    sweep.finished({"optimizer": "a|b<br>"}, val_acc=None, test_acc=None, num_trained_params=None)
    sweep.unfinished({"optimizer": "c"})
    assert table(sweep)[2] == "| a\\|b&lt;br> | – | – | – | 10.0 |"


def test_a_sweep_without_results_says_so(sweep: Sweep) -> None:
    sweep.unfinished({"lr": "1"})
    assert table(sweep) == ["No run has finished."]
