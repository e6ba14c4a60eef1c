"""The command and the link that a run prints lead to MLflow's pages."""

from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tl_experiments.tracking.links import charts_link, sweep_or_run_tags, ui_command


def test_the_command_is_short_where_the_store_lies_under_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert ui_command(uri) == "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"


def test_the_command_names_a_store_elsewhere_in_full_and_quotes_it() -> None:
    assert ui_command("sqlite:////my data/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////my data/mlflow.db'"


def test_a_server_needs_no_command() -> None:
    assert ui_command("https://mlflow.example.org") is None


def test_the_link_opens_charts_sorted_by_the_best_val_acc() -> None:
    link = charts_link("7", tags={"tl.sweep_id": "a b", "tl.kind": "run"})
    page, _, query = link.partition("?")
    assert page == "http://127.0.0.1:5000/#/experiments/7/runs"
    assert parse_qs(query) == {
        "workflowType": ["machine_learning"],
        "compareRunsMode": ["CHART"],
        "searchFilter": ["tags.`tl.sweep_id` = 'a b' AND tags.`tl.kind` = 'run'"],
        "orderByKey": ["metrics.`val/acc_best`"],
        "orderByAsc": ["false"],
    }


def test_the_link_can_be_copied_from_a_terminal_and_pasted() -> None:
    assert not set(charts_link("7", tags={"tl.uid": "x y'`"})) & set(" '`\"<>")


def test_the_link_leads_to_the_users_own_server() -> None:
    link = charts_link("1", tags={"tl.uid": "u"}, server="https://mlflow.example.org/")
    assert link.startswith("https://mlflow.example.org/#/experiments/1/runs?")


def test_a_run_of_a_sweep_shows_the_sweep() -> None:
    assert sweep_or_run_tags({"tl.uid": "u", "tl.kind": "run"}) == {"tl.uid": "u"}
    in_sweep = sweep_or_run_tags({"tl.uid": "u", "tl.kind": "run", "tl.sweep_id": "s"})
    assert in_sweep == {"tl.sweep_id": "s", "tl.kind": "run"}
