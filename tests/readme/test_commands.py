"""Every command of the README is run."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.commands import page
from tests.readme.pages import GUIDE, README, ROOT, SERVE, UI, commands, runs, shows_its_end, type_on_little

# What `.ci/run` does itself, before and while this test runs.
INSTALLATION = ["pip install -e .", 'pip install -e ".[dev]"', "pytest"]
EXTRAS = [f'pip install -e ".[{extra}]"' for extra in ("optuna", "lora", "serve,export")]  # which `.[dev]` holds
FIRST = runs(README)[0]


def test_every_command_is_of_a_kind_that_is_run():
    shown = {*commands(README), *commands(GUIDE)}
    typed = {*runs(README), *runs(GUIDE), *INSTALLATION, UI}
    assert typed <= shown <= typed | {*EXTRAS}
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(step in script for step in ("scripts/check", "pytest", '-e ".[dev]"'))


@pytest.mark.parametrize("page", [README, GUIDE])
def test_every_picture_is_there(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert ((ROOT / page).parent / picture).is_file(), picture


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in runs(README) if command != SERVE])
def test_run(command: str, images: Path, desk: Path):
    code, told = type_on_little(command, images=images, desk=desk, in_a_fork=command != FIRST)
    assert code == 0, told
    assert shows_its_end(told), told


@pytest.mark.slow
def test_serve_answers(images: Path, desk: Path):
    """With what the commands above have left; in a process that imports what it needs."""
    command = [sys.executable, "-m", "tl_experiments", *shlex.split(SERVE)[1:], "--port", "0"]
    with subprocess.Popen(command, cwd=desk, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as service:
        try:
            address = next(found[0] for line in service.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            assert "<title>" in page(f"{address}/", seconds=10)
            content = (images / "cat" / "0.png").read_bytes()
            asked = urllib.request.Request(f"{address}/predict", content, {"Content-Type": "image/png"})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                assert json.load(answer)["predictions"][0]["label"] in ("cat", "dog")
        finally:
            service.terminate()
            rest, _ = service.communicate(timeout=20)
    assert (service.returncode, rest) == (0, "stopped\n")


@pytest.mark.slow
def test_ui_serves_itspage(desk: Path):
    (desk / "outputs").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(UI), "--port", str(port), "--workers", "1"],
        cwd=desk,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes that show no page
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert "<title>MLflow</title>" in page(f"http://127.0.0.1:{port}/", seconds=90)
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # its workers too
        server.wait(timeout=30)
