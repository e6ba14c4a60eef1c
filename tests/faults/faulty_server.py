"""A tracking server that can be made to fail in many ways: a proxy before a real one, or before nothing."""

import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.commands import wait_for
from tests.faults.processes import server

PASS, REFUSE, HANG, SLOW, LOSE, GARBAGE, OBJECT = "pass", "refuse", "hang", "slow", "lose", "garbage", "object"
SLOW_SECONDS = 1.5
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class FaultyServer:
    """What answers at `uri`, in one of the modes above or with an HTTP status such as "500"."""

    def __init__(self, backend: int | None = None) -> None:
        """Answer from the start.

        Args:
            backend: port of the real server.
        """
        self.backend = backend
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.num_requests = 0
        self._mode = PASS
        self._server: ThreadingHTTPServer | None = None
        self._released = threading.Event()
        self._listen()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._released.set()  # whoever hangs is let go, without an answer
        self._released = threading.Event()
        self._mode = mode
        if mode == REFUSE:
            self.close()
        elif self._server is None:
            self._listen()

    def close(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _listen(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer._answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.num_requests += 1
        body, mode, released = (
            request.rfile.read(int(request.headers.get("Content-Length", 0))),
            self.mode,
            self._released,
        )
        status, headers, answer = 200, {}, b"<html>welcome to our network</html>"
        if mode == OBJECT:
            answer = b'{"welcome": "to our network"}'
        elif mode.isdigit():
            status, answer = int(mode), b"trouble"
        elif mode in (PASS, SLOW, LOSE):
            time.sleep(SLOW_SECONDS if mode == SLOW else 0)
            status, headers, answer = self._forwarded(request, body)
        if mode in (HANG, LOSE):
            released.wait()
            return
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _forwarded(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert self.backend is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=60)
        kept = {name: value for name, value in request.headers.items() if name.lower() not in {*HOP, "host"}}
        connection.request(request.command, request.path, body=body, headers=kept)
        response = connection.getresponse()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
        return response.status, headers, response.read()


@contextmanager
def real_server(
    folder: Path, *, database: str, port: int | None = None, credentials: tuple[str, str] | None = None
) -> Iterator[int]:
    """Run MLflow's own server, which is killed in the end; yields its port.

    Args:
        folder: of its log and of artifacts.
        database: its address.
        port: None is any that is free.
        credentials: of its only user, whom it lets in alone; None is everybody.
    """
    port = port or free_port()
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if credentials:
        command += ["--app-name", "basic-auth"]
        environment |= _users(folder / "users.ini", database, credentials)
    with mlflow_serves(*command, cwd=folder, environment=environment, answers=lambda: _is_healthy(port)):
        yield port


@contextmanager
def mlflow_serves(
    *command: str, cwd: Path, environment: Mapping[str, str], answers: Callable[[], bool]
) -> Iterator[None]:
    """Type a command of MLflow that starts a server, which answers inside and is killed in the end.

    The command is forked, and starts the server as a process of its own.
    """
    program = server().start(*command, cwd=cwd, environment=environment, program="mlflow")
    try:
        wait_for(lambda: program.ended or answers(), lambda: f"the server did not start: {program.output}")
        assert not program.ended, program.output
        yield
    finally:
        program.signal(signal.SIGKILL)
        program.wait()


def _users(settings: Path, database: str, credentials: tuple[str, str]) -> dict[str, str]:
    """Write where MLflow keeps its users; returns the environment that names it and the first of them."""
    lines = ["[mlflow]", "default_permission = READ", f"database_uri = {database}", "auth_cache_ttl_seconds = 60"]
    settings.write_text("\n".join(lines) + "\n")
    name, password = credentials
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": name,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret of a test",
    }


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
