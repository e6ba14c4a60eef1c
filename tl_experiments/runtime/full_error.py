"""HYDRA_FULL_ERROR: the door borrows it to get at Hydra's errors, and gives it back where the user's code runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "HYDRA_FULL_ERROR"
_users_value = os.environ.get(VARIABLE)


def wants_traceback() -> bool:
    """Whether the user asked for whole tracebacks."""
    return _users_value not in (None, "", "0")


def borrow() -> None:
    """Have Hydra hand every error to its caller instead of printing a text of its own."""
    os.environ[VARIABLE] = "1"


def give_back() -> None:
    """Set the variable as the user had it."""
    _set(_users_value)


@contextmanager
def given_back() -> Iterator[None]:
    """Inside, and in every process that is started inside, the variable is as the user had it."""
    before = os.environ.get(VARIABLE)
    give_back()
    try:
        yield
    finally:
        _set(before)


def _set(value: str | None) -> None:
    if value is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = value
