"""`tlx serve` as a user starts and stops it."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.commands import take_signals
from tests.serve.conftest import RUN, Expected
from tl_experiments.cli.verbs import main
from tl_experiments.serve.service import bind


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Start the service; yields the process, its URL and what it has said."""
    command = [sys.executable, "-m", "tl_experiments", "serve", str(RUN), "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=take_signals
    ) as process:
        assert process.stdout
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line)
                if found := re.match(r"serving (\S+)", line):
                    yield process, found[1], said
                    return
            pytest.fail("".join(said))
        finally:
            process.kill()


def connect(url: str) -> socket.socket:
    place = httpx.URL(url)
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((place.host, place.port or 80), timeout=10)
        except ConnectionRefusedError:  # it is said a moment before it listens
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def is_alive(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/health", headers={"Host": "localhost"}, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.json() == {"status": "alive"}


def stopped(process: subprocess.Popen[str], url: str, number: signal.Signals, expected: Expected) -> tuple[int, str]:
    """Ask the service to stop while it has half of a request; returns its exit code and last words."""
    image = expected.files[0]
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with connect(url) as begun:
        begun.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image[:10])
        assert is_alive(url)
        process.send_signal(number)
        while is_alive(url):  # until it takes no more requests
            time.sleep(0.02)
        begun.sendall(image[10:])
        start = time.monotonic()
        assert f'"label":"{expected.labels[0]}"'.encode() in b"".join(iter(lambda: begun.recv(10_000), b""))
        rest = process.communicate(timeout=20)[0]
        assert time.monotonic() - start < 10
    return process.returncode, rest


@pytest.mark.slow
def test_asked_to_stop_it_finishes_what_it_has_begun(expected: Expected) -> None:
    with started() as (process, url, said):
        assert stopped(process, url, signal.SIGTERM, expected) == (0, "stopped\n")
    assert said[0].startswith("model   timm backbone.name=test_efficientnet")
    assert said[0].endswith("(10 classes, cpu (1 threads), fp32)\n")
    assert said[1:] == [f"serving {url}  (Ctrl-C stops it)\n"]


@pytest.mark.slow
def test_other_machines_are_warned_of_and_ctrl_c_is_no_error(expected: Expected) -> None:
    with started("--host", "0.0.0.0") as (process, url, said):
        assert said[0] == "warning: 0.0.0.0 is reached from other machines, and nobody is asked for a password\n"
        here = url.replace("0.0.0.0", "127.0.0.1")
        connect(here).close()
        assert httpx.get(f"{here}/health", headers={"Host": "any.name"}, trust_env=False).status_code == 200
        assert stopped(process, here, signal.SIGINT, expected) == (0, "stopped\n")


def test_a_port_in_use_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1", 0).socket as taken:  # as of a service that still loads its model
        port = taken.getsockname()[1]
        assert main(["serve", str(RUN), "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert told == (
        f"error: port {port} of 127.0.0.1 is in use, perhaps by this command started before; "
        f"expected a free one, such as --port {port + 1}\n"
    )


@pytest.mark.parametrize("host", ["no.such.name.invalid", "203.0.113.1", "a..b"])
def test_what_is_no_place_of_this_machine_is_told(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(RUN), "--host", host]) == 2
    assert re.fullmatch(
        f"error: {host}:8000 cannot be listened on: .*; expected --host and --port of this machine\n",
        capsys.readouterr().err,
    )
    assert main(["serve", str(RUN), "--port", "70000"]) == 2
    assert capsys.readouterr().err == "error: --port 70000: expected 0 to 65535\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-mb", "0"], "--max-mb 0.0: expected more than 0"),
        (
            ["--max-pixels", "200000000"],
            "--max-pixels 200000000: expected at most 89478485, which is the most of any image",
        ),
        (["--timeout", "nan"], "--timeout nan: expected more than 0"),
        (["--max-wait-ms", "-1"], "--max-wait-ms -1.0: expected 0 or more"),
        (["--max-waiting", "8"], "--max-waiting 8: expected at least --max-images 32, of one request"),
    ],
)
def test_limits_that_cannot_be_are_refused(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(RUN), *options]) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "there is no trained model" in capsys.readouterr().err
