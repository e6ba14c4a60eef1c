"""A store that does not answer is asked less and less often, and is given more and more time."""

import os
from collections.abc import Iterator

import pytest
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

from tl_experiments.tracking.patience import OURS, RETRIES, TIMEOUT, Patience, limited


def test_each_failure_doubles_the_pause_and_the_time_for_an_answer() -> None:
    patience, seen = Patience(), []
    for _ in range(8):
        patience.failed("away", now=100.0)
        seen.append((patience.ask_at - 100, patience.timeout))
    assert seen == [(1, 10), (2, 20), (4, 40), (8, 60), (16, 60), (32, 60), (60, 60), (60, 60)]
    patience.answered()
    assert (patience.is_away, patience.ask_at, patience.timeout) == (False, 0.0, 60)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (TIMEOUT, RETRIES, OURS):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in (TIMEOUT, RETRIES, OURS):
        os.environ.pop(name, None)


def waits() -> tuple[int, int]:
    return MLFLOW_HTTP_REQUEST_TIMEOUT.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()


def test_mlflow_is_given_the_time_and_asks_once_for_as_long_as_anything_is_waited_for() -> None:
    usual = waits()
    first, second = Patience(), Patience(timeout=40)
    first.apply()
    assert waits() == (5, 0)
    second.apply()
    assert waits() == (40, 0)
    first.release()
    assert waits() == (40, 0)
    second.release()
    assert waits() == usual, "the user's own calls of MLflow wait as ever"
    assert OURS not in os.environ


def test_a_process_that_was_started_meanwhile_takes_what_it_inherits_for_no_wish_of_the_user() -> None:
    with limited(5):
        inherited = {name: os.environ[name] for name in (TIMEOUT, RETRIES, OURS)}
    os.environ.update(inherited)
    with limited(60):
        assert waits() == (60, 0)
    assert not inherited.keys() & os.environ.keys()


@pytest.mark.parametrize("timeout", ["120", "+120"])
def test_what_the_user_has_set_stays(timeout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, timeout)
    monkeypatch.setenv(RETRIES, "3")
    with limited(5):
        assert waits() == (120, 3)
    assert (os.environ[TIMEOUT], os.environ[RETRIES]) == (timeout, "3")
