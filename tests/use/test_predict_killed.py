"""`tlx predict` that is killed or told to stop: what is finished is kept, the output as if nothing had been."""

import io
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import take_signals
from tests.digit_files import MODEL, write_digits
from tl_experiments.cli.verbs import main
from tl_experiments.inference.prediction_parts import parts_folder

LIMIT_SECONDS = 240
SMALL_PARTS = (  # as `tlx`, but a part is finished after two batches
    "import sys; from tl_experiments.use import predict; predict.PART_ROWS = 64; "
    "from tl_experiments.cli.verbs import main; sys.exit(main())"
)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of 332 images, two of them bad, from where commands are typed."""
    monkeypatch.chdir(tmp_path)
    every = [f"in/{name}" for name in write_digits(tmp_path / "in", 60)]
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [*every, "bad.png", *every * 3, *every[:30], "gone.png", *every]


def stopped_by(number: signal.Signals, names: Sequence[str], output: Path) -> tuple[int, str]:
    """Predict in a process that waits for more paths, behind three finished parts; returns its exit code and words."""
    command = [sys.executable, "-c", SMALL_PARTS, "predict", str(MODEL), "-", "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--batch-size", "32", "--workers", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_signals,
    )
    assert process.stdin is not None
    process.stdin.write("".join(f"{name}\n" for name in names))
    process.stdin.flush()
    end = time.monotonic() + LIMIT_SECONDS
    while len(list(parts_folder(output).glob("00000[012]-*"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, told


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
    def predict(output: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
        arguments = ["predict", str(MODEL), "-", "--output", output, "--batch-size", "32", "--workers", "0"]
        return main(arguments), capsys.readouterr().out

    output = Path(f"out.{suffix}")
    ended, told = stopped_by(number, names[:-40], output)
    assert ended == code, told
    assert len(told.splitlines()) == (number != signal.SIGKILL), told
    assert not output.exists()
    ended, told = predict(str(output))
    assert ended == 1, "there are bad images, one in a part that was finished before and one in a new one"
    assert told.startswith("goes on after 192 images that an earlier command has finished\n")
    assert f"{len(names)} images, 2 of them bad" in told
    assert predict(f"undisturbed.{suffix}")[0] == 1
    assert output.read_bytes() == Path(f"undisturbed.{suffix}").read_bytes()
    assert not parts_folder(output).exists()
