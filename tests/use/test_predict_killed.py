"""`tlx predict` that is killed or told to stop: what is finished is kept, the output as if nothing had been."""

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.commands import take_signals
from tests.digit_files import MODEL, write_digits
from tests.runtime.row_store.filling import ended
from tl_experiments.cli.verbs import main
from tl_experiments.inference.prediction_parts import parts_folder
from tl_experiments.use import predict

LIMIT_SECONDS = 240


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of 332 images, two of them bad, from where commands are typed."""
    monkeypatch.chdir(tmp_path)
    every = [f"in/{name}" for name in write_digits(tmp_path / "in", 60)]
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [*every, "bad.png", *every * 3, *every[:30], "gone.png", *every]


def stopped_by(number: signal.Signals, names: Sequence[str], output: Path) -> tuple[int, str]:
    """Predict in a process that waits for more paths, behind three finished parts; returns its exit code and words."""
    behind, told = os.pipe(), output.with_suffix(".told")
    child = os.fork()  # of this process, which has imported what it takes
    if child == 0:
        _predict_small_parts(output, stdin=behind, told=told)
    os.close(behind[0])
    with os.fdopen(behind[1], "w") as paths:
        paths.write("".join(f"{name}\n" for name in names))
        paths.flush()
        end = time.monotonic() + LIMIT_SECONDS
        while len(list(parts_folder(output).glob("00000[012]-*"))) < 3:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), told.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(child, number)
        return ended(child), told.read_text()


def _predict_small_parts(output: Path, *, stdin: tuple[int, int], told: Path) -> NoReturn:
    """Be `tlx predict`, which finishes a part after two batches."""
    code = 70
    try:
        take_signals()
        os.close(stdin[1])
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(stdin[0]), io.StringIO(), told.open("w", buffering=1)
        predict.PART_ROWS = 64
        torch.set_num_threads(1)
        code = main(["predict", str(MODEL), "-", "--output", str(output), "--batch-size", "32", "--workers", "1"])
    finally:
        os._exit(code)


@pytest.mark.parametrize(
    ("number", "code", "suffix"),
    [(signal.SIGKILL, -9, "csv"), (signal.SIGTERM, 143, "parquet"), (signal.SIGINT, 130, "jsonl")],
)
def test_the_same_command_goes_on_and_the_output_has_the_bytes_of_an_undisturbed_one(
    number: signal.Signals,
    code: int,
    suffix: str,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def again(output: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
        arguments = ["predict", str(MODEL), "-", "--output", output, "--batch-size", "32", "--workers", "0"]
        return main(arguments), capsys.readouterr().out

    output = Path(f"out.{suffix}")
    code_of_it, told = stopped_by(number, names[:-40], output)
    assert code_of_it == code, told
    assert len(told.splitlines()) == (number != signal.SIGKILL), told
    assert not output.exists()
    status, told = again(str(output))
    assert status == 1, "there are bad images, one in a part that was finished before and one in a new one"
    assert told.startswith("goes on after 192 images that an earlier command has finished\n")
    assert f"{len(names)} images, 2 of them bad" in told
    assert again(f"undisturbed.{suffix}")[0] == 1
    assert output.read_bytes() == Path(f"undisturbed.{suffix}").read_bytes()
    assert not parts_folder(output).exists()
