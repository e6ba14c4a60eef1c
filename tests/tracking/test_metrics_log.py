"""metrics.jsonl can be read after any death of the process that wrote it."""

import json
import resource
import signal
from pathlib import Path

import pytest

from tl_experiments.tracking.metrics_log import append_metrics, read_metrics


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"epoch": epoch, "phase": "fit", "val/acc": epoch / 10} for epoch in (1, 2, 3)]
    for row in rows:
        append_metrics(path, [row])
        assert read_metrics(path)[-1] == row  # on disk at once, not when the file is closed
    assert read_metrics(path) == rows


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, [{"epoch": 1, "train/loss": float("nan"), "val/loss": float("inf"), "val/acc": 0.5}])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {"epoch": 1, "train/loss": None, "val/loss": None, "val/acc": 0.5}


def test_half_a_line_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, [{"epoch": 1}])
    with path.open("a") as file:
        file.write('{"epoch": 2, "val')
    assert read_metrics(path) == [{"epoch": 1}]


def test_rows_that_a_full_disk_refuses_leave_no_half_line_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, [{"epoch": 1}])
    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limit))
    try:
        with pytest.raises(OSError):
            append_metrics(path, [{"epoch": 2}, {"epoch": 3}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == '{"epoch": 1}\n'
    append_metrics(path, [{"epoch": 2}, {"epoch": 3}])
    assert [row["epoch"] for row in read_metrics(path)] == [1, 2, 3]
