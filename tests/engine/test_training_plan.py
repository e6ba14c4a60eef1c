"""A plan counts what has a gradient in each phase, and gives its rates, epochs and BatchNorm's mode."""

import io
import json
from pathlib import Path

import pytest
import rich.console

from tests.engine.test_trainer import image_workload, make_workload
from tl_experiments.engine.training_plan import PartPlan, PhasePlan, TrainingPlan, make_training_plan
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.plan_table import plan_line, plan_text, write_plan


def part(name: str, scale: float, count: int = 10) -> PartPlan:
    return PartPlan(name, count, scale, weight_decay=True, l2_sp=0.0)


MANY = TrainingPlan(
    phases=(
        PhasePlan("probe", 1, 3, (part("head", 10.0),), "eval", by_steps=True),
        PhasePlan(
            "finetune",
            4,
            4,
            (*(part(f"backbone.stage{n}", 0.5 ** (6 - n), 1000) for n in range(1, 6)), part("head", 1.0)),
            "mixed",
            by_steps=True,
        ),
        PhasePlan("nearest", 5, 6, (), "none", by_steps=False),
    ),
    num_params=5010,
    lrs=(1e-3, 1e-1),
)


def test_the_parameters_of_one_member_count_and_rates_span_all() -> None:
    plan = make_training_plan(make_workload((0, 1), epochs=(2, 3)), lrs=[0.1, 0.4])
    assert [(phase.first_epoch, phase.last_epoch) for phase in plan.phases] == [(1, 2), (3, 5)]
    assert [phase.num_params for phase in plan.phases] == [6 * 3 + 3] * 2
    assert plan.num_params == 6 * 3 + 3
    assert plan.peaks(plan.phases[0]) == (0.1, 0.4)
    assert plan.of_member(1).peaks(plan.phases[0]) == (0.4, 0.4)


@pytest.mark.parametrize(("held", "mode"), [(False, "train"), (True, "eval")])
def test_batchnorm_is_as_the_phase_has_it(held: bool, mode: str) -> None:
    workload, _ = image_workload(held=held)
    assert make_training_plan(workload, lrs=[0.1]).phases[0].batchnorm == mode
    assert make_training_plan(make_workload(), lrs=[0.1]).phases[0].batchnorm == "none"


def test_a_table_has_a_row_for_each_phase() -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in plan_text(MANY).splitlines() if "│" in line]
    assert rows == [
        ["probe", "head", "10 of 5,010", "0.01–1", "1–3", "eval"],
        ["finetune", "backbone.stage1 … stage5, head", "5,010 of 5,010", "3.13e-05–0.1", "4", "mixed"],
        ["nearest", "", "0 of 5,010", "solved", "5–6", "none"],
    ]


def test_one_run_of_many_says_it_in_a_line() -> None:
    file = io.StringIO()
    Console(console=rich.console.Console(file=file, width=80)).plan(MANY.of_member(0), brief=True)
    assert file.getvalue() == f"{plan_line(MANY.of_member(0))}\n"
    assert "probe (head; 10 parameters; lr 0.01; epochs 1–3), then finetune (" in file.getvalue()


def test_each_members_files_hold_its_own_rates(tmp_path: Path) -> None:
    as_json, as_text = write_plan(tmp_path, MANY.of_member(1))
    written = json.loads(as_json.read_text())
    assert [phase["num_trained_params"] for phase in written["phases"]] == [10, 5010, 0]
    assert written["phases"][0]["parts"] == [
        {"name": "head", "num_params": 10, "lr_scale": 10.0, "weight_decay": True, "l2_sp": 0.0, "peak_lr": 1.0}
    ]
    assert as_text.read_text() == plan_text(MANY.of_member(1))
