"""Tests that did not end well are told to the scorecard as well, so that no row is missing without a word."""

import pytest

from tests.faults.scorecard import record


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.rpartition("/")[2]
    if report.failed:
        record("", failed=name)
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        record("", skipped=name, reason=reason.removeprefix("Skipped: "))
