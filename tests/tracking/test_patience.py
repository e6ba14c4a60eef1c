"""A store that does not answer is asked less and less often, and is given more and more time."""

import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

from tl_experiments.tracking.patience import RETRIES, TIMEOUT, Patience


def test_each_failure_doubles_the_pause_and_the_time_for_an_answer() -> None:
    patience, seen = Patience(), []
    for _ in range(8):
        patience.failed("away", now=100.0)
        seen.append((patience.ask_at - 100, patience.timeout))
    assert seen == [(1, 10), (2, 20), (4, 40), (8, 60), (16, 60), (32, 60), (60, 60), (60, 60)]
    patience.answered()
    assert (patience.is_away, patience.ask_at, patience.timeout) == (False, 0.0, 60)


def test_mlflow_is_given_the_time_and_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TIMEOUT, raising=False)
    monkeypatch.setenv(RETRIES, "+2")  # as this package sets it for commands
    Patience().apply()
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (5, 0)
    Patience(timeout=40).apply()
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 40


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "120")
    monkeypatch.setenv(RETRIES, "3")
    Patience().apply()
    assert (MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()) == (120, 3)
