"""`tlx serve` as a user starts and stops it."""

import re
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.commands import Ended
from tests.faults.processes import Program
from tests.serve.conftest import RUN, Expected
from tests.serve.forked import serving
from tl_experiments.cli.verbs import main
from tl_experiments.serve.service import bind

TYPED = (str(RUN), "--device", "cpu")


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


def stopped(service: Program, url: str, number: signal.Signals, expected: Expected) -> Ended:
    """Ask the service to stop while it has half of a request; returns how it ended."""
    image = expected.files[0]
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with connect(url) as begun:
        begun.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image[:10])
        assert is_alive(url)
        service.signal(number, alone=True)
        while is_alive(url):  # until it takes no more requests
            time.sleep(0.02)
        begun.sendall(image[10:])
        start = time.monotonic()
        assert f'"label":"{expected.labels[0]}"'.encode() in b"".join(iter(lambda: begun.recv(10_000), b""))
        ended = service.end(limit_seconds=20)
        assert time.monotonic() - start < 10
    return ended


@pytest.mark.slow
def test_asked_to_stop_it_finishes_what_it_has_begun(expected: Expected) -> None:
    with serving(*TYPED) as (service, url):
        ended = stopped(service, url, signal.SIGTERM, expected)
    assert (ended.code, ended.err) == (0, "")
    model, *said = ended.out.splitlines()
    assert model.startswith("model   timm backbone.name=test_efficientnet")
    assert model.endswith("(10 classes, cpu (1 threads), fp32)")
    assert said == [f"serving {url}  (Ctrl-C stops it)", "stopped"]


@pytest.mark.slow
def test_other_machines_are_warned_of_and_ctrl_c_is_no_error(expected: Expected) -> None:
    with serving(*TYPED, "--host", "0.0.0.0") as (service, url):
        warning, *_ = service.output.splitlines()
        assert warning == "warning: 0.0.0.0 is reached from other machines, and nobody is asked for a password"
        here = url.replace("0.0.0.0", "127.0.0.1")
        connect(here).close()
        assert httpx.get(f"{here}/health", headers={"Host": "any.name"}, trust_env=False).status_code == 200
        ended = stopped(service, here, signal.SIGINT, expected)
    assert (ended.code, ended.out.splitlines()[-1], ended.err) == (0, "stopped", "")


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
