"""The page about scale says what its model says, and the model what its formulas do."""

import re
from pathlib import Path

import pytest
import scale_model

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def test_the_tables_are_what_the_model_prints() -> None:
    [quoted] = re.findall(r"<!-- predictions -->\n(.*)\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert quoted.strip() == scale_model.predictions()


def test_the_limits_that_the_page_names_are_the_reports() -> None:
    from tl_experiments.sweep.report import charts, page

    text = PAGE.read_text()
    assert f"up to {charts.MOST_RUNS} runs are drawn one by one" in text
    assert f"tables show {page.MOST_ROWS:,} rows" in text


def test_the_model_is_linear_where_it_says_so_and_ranks_never_gain_more_than_their_number() -> None:
    for machine in scale_model.MACHINES:
        assert scale_model.extract_seconds(2e6, machine) == pytest.approx(2 * scale_model.extract_seconds(1e6, machine))
    efficiencies = [scale_model.efficiency(ranks) for ranks in scale_model.RANKS]
    assert efficiencies[0] == 1
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert all(0 < efficiency <= 1 for efficiency in efficiencies)
    assert scale_model.store_bytes(1_281_167) == 1_281_167 * 2_048 * 4
