"""`tlx ui`: MLflow's pages on the right store, on this machine alone, gone with all their processes afterwards."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import page
from tests.faults.faulty_server import free_port
from tests.faults.processes import Program, server
from tl_experiments.cli.verbs import main
from tl_experiments.tracking.mlflow_tracker import MlflowTracker


def start(store: str, port: int, desk: Path) -> Program:
    arguments = ("ui", "--port", str(port), "--tracking-uri", store)
    return server().start(*arguments, cwd=desk, logs=desk, program="tlx")


@pytest.mark.slow
def test_the_pages_of_the_store_are_shown_until_ctrl_c_ends_them_and_all_processes(
    make_tracker: Callable[..., MlflowTracker], store_uri: str, tmp_path: Path
) -> None:
    uid, sweep = "shown", "sweep-of-the-shown"
    with make_tracker(uid, **{"tl.sweep_id": sweep}) as tracker:
        tracker.log_metrics({"val/acc": 0.5}, step=1)
    port = free_port()
    program = start(store_uri, port, tmp_path)
    try:
        assert "<title>MLflow</title>" in page(f"http://127.0.0.1:{port}/")
        assert uid in page(f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/get?run_id={tracker.run_id}")
        first, charts = program.output.splitlines()[:2]
        assert first == f"ui      http://127.0.0.1:{port} until Ctrl-C"
        assert charts.startswith(f"charts  http://127.0.0.1:{port}/#/experiments/")
        assert sweep in charts
        program.signal(signal.SIGINT, alone=True)
        ended = program.end(limit_seconds=30)
    finally:
        if not program.ended:
            program.signal(signal.SIGKILL)
    assert ended.code == 0
    assert "Traceback" not in ended.err
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["ui", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_what_keeps_the_pages_away_is_told_in_a_line(
    make_tracker: Callable[..., MlflowTracker],
    store_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with make_tracker():
        pass
    none = f"sqlite:///{tmp_path / 'none.db'}"
    assert f"{none}: no such database" in refused(capsys, "--tracking-uri", none)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(capsys, "--tracking-uri", store_uri, "--port", str(port)) == (
            f"port {port} of 127.0.0.1 is in use, perhaps by this command started before; "
            f"expected a free one, such as --port {port + 1}"
        )
    assert refused(capsys, "--tracking-uri", store_uri, "--port", "0") == "--port 0: expected 1 to 65535"
    assert "203.0.113.1:5000 cannot be listened on" in refused(
        capsys, "--tracking-uri", store_uri, "--host", "203.0.113.1"
    )


def test_a_server_shows_its_pages_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hush@runs.example:8080")
    assert main(["ui"]) == 0
    assert capsys.readouterr().out == (
        "ui      https://runs.example:8080, which is a server that shows its pages itself\n"
    )
