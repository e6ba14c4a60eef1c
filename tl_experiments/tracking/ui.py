"""`tlx ui`: MLflow's pages on the store of the runs, on this machine alone, until Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.listening import MOST_PORT, listen
from tl_experiments.runtime.signals import terminable
from tl_experiments.tracking.address import absolute_uri, without_user
from tl_experiments.tracking.links import charts_link, is_server, sweep_or_run_tags
from tl_experiments.tracking.mlflow_store import existing_client

END_SECONDS = 3  # that the server has to end; taking its interpreter apart takes longest


def show_ui(*, host: str, port: int, tracking_uri: str | None, tell: Callable[[str], None]) -> None:
    """Serve MLflow's pages until Ctrl-C, or say where the server of the store shows them.

    Args:
        host: name or address of this machine that is listened on.
        port: of it.
        tracking_uri: of the store; None is $MLFLOW_TRACKING_URI, else the default store.
        tell: takes the lines that say where the pages are.

    Raises:
        SettingError: there is no store yet, or the port is taken.
        RunFailed: the server ended by itself.
    """
    address = absolute_uri(tracking_uri)
    if is_server(address):
        tell(f"ui      {without_user(address)}, which is a server that shows its pages itself")
        return
    latest = _charts_of_latest(address, server=f"http://{host}:{port}")
    _require_free(host, port)
    tell(f"ui      http://{host}:{port} until Ctrl-C")
    if latest:
        tell(f"charts  {latest}")
    with terminable(), _hanging_up(), _server(address, host=host, port=port) as server:
        code = server.wait()
    raise RunFailed(f"mlflow ui ended by itself, with exit code {code}; what it says of it stands above")


def _charts_of_latest(address: str, *, server: str) -> str | None:
    """Return the page of the latest sweep, or of the latest run that is in none; None of an empty store."""
    with existing_client(address) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(
            experiments, "tags.`tl.kind` = 'run'", order_by=["attributes.start_time DESC"], max_results=1
        )
    if not runs:
        return None
    return charts_link(runs[0].info.experiment_id, tags=sweep_or_run_tags(runs[0].data.tags), server=server)


def _require_free(host: str, port: int) -> None:
    if not 1 <= port <= MOST_PORT:
        raise SettingError(f"--port {port}: expected 1 to {MOST_PORT}")
    listen(host, port).close()  # the server that takes it next would say so in a traceback


@contextmanager
def _hanging_up() -> Iterator[None]:
    """Take a terminal that is closed for SIGTERM: the server, in a session of its own, would not hear of it."""
    previous = signal.getsignal(signal.SIGHUP)
    if previous != signal.SIG_IGN:  # as by nohup
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)


@contextmanager
def _server(address: str, *, host: str, port: int) -> Iterator[subprocess.Popen]:
    """Run `mlflow ui` in a group of processes of its own, all of which end with the block."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    stores = {f"MLFLOW_{kind}_STORE_URI": address for kind in ("BACKEND", "REGISTRY")}  # a secret is not seen in `ps`
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    environment = os.environ | stores | quiet
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
