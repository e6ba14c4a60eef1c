"""SIGTERM or Ctrl-C at any moment: the run saves, ends in time, says so, and goes on with the same bits."""

import functools
import json
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import SMALL
from tests.faults.processes import STEPS, Program, Strike, Truth, processes_of, server, two_at_a_time, unfinished
from tests.faults.scorecard import FULL, record

ROW = "SIGTERM and SIGINT"
LIMIT_SECONDS = 20.0
KINDS = {
    "feature": ("strategy=feature", *SMALL),
    "finetune": ("strategy=finetune", *SMALL, "augmentation=light"),
}
TINY = (
    *("dataset=image_folder", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1", "tracking=none"),
    *("epochs=2", "batch_size=8", "runtime.infer_batch_size=8", "runtime.image_memory_gb=0"),
)
NUM_TRAIN, NUM_VAL, NUM_TEST = 40, 16, 16  # images
STEPS_OF_EPOCH = 5
# Phase → strategy, place of the signal, and seconds after it.
PHASES = {
    "composing": ("feature", "begin", 0.1),
    "reading": ("finetune", "reading 1", 0.0),
    "starting workers": ("finetune", "fork 1", 0.0),
    "decoding": ("finetune", "checking 1", 0.0),
    "extracting": ("feature", "extracting 2", 0.0),
    "training": ("finetune", "train 1 2", 0.0),
    "training, 2nd epoch": ("finetune", "train 2 3", 0.0),
    "evaluation": ("finetune", "val 1 1", 0.0),
    "saving": ("finetune", "save 1 sync 2", 0.0),
    "test": ("finetune", "test 2 1", 0.0),
    "ending": ("finetune", "test 2 2 sync 2", 0.0),
}
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
CASES = [case for case in product(PHASES, (0, 2), EXIT_CODES) if case[:2] != ("starting workers", 0)]
ORDINARY = [
    ("starting workers", 2, signal.SIGTERM),
    ("extracting", 0, signal.SIGTERM),
    ("training", 2, signal.SIGTERM),
    ("evaluation", 0, signal.SIGINT),
]


@functools.cache
def images() -> Path:
    """A folder of images that are hard to tell apart; it stays for the whole session."""
    root = Path(tempfile.mkdtemp()) / "images"
    generator = np.random.default_rng(0)
    for split, num in (("train", NUM_TRAIN), ("val", NUM_VAL), ("test", NUM_TEST)):
        for index in range(num):
            folder = root / split / "cd"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 200 + 50 * (index % 2), (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def type_in(desk: Path, *arguments: str, strike: Strike | None = None) -> Program:
    return server().start(*arguments, cwd=desk, strike=strike, environment={"TL_CACHE_DIR": str(desk / "cache")})


def typed(kind: str, *, workers: int) -> tuple[str, ...]:
    return (*KINDS[kind], *TINY, f"dataset.root={images()}", f"runtime.workers={workers}", "hydra.run.dir=run")


@functools.cache
def undisturbed(kind: str) -> Truth:
    with tempfile.TemporaryDirectory() as folder:
        program = type_in(Path(folder), *typed(kind, workers=0))
        assert program.wait() == 0, program.output
        return Truth.of(Path(folder) / "run")


def steps_at(place: str) -> int:
    """Return the steps that a run has made when it comes to a place."""
    kind, *numbers = place.split()
    if kind == "train":
        return (int(numbers[0]) - 1) * STEPS_OF_EPOCH + int(numbers[1])
    return {"val": 1, "save": 1, "test": 2}.get(kind, 0) * STEPS_OF_EPOCH  # all of them are of the first epoch


def steps_made(desk: Path) -> int:
    path = desk / STEPS
    return len(path.read_text().splitlines()) if path.exists() else 0


def steps_saved(desk: Path) -> int:
    found = (desk / "run" / "checkpoints").glob("epoch-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


@dataclass(frozen=True)
class Stopped:
    """What became of a run that got a signal, and was gone on with.

    Attributes:
        code: with which it ended.
        output: what it said.
        seconds: from the signal to the end.
        left_over: processes that it started and that outlived it.
        status: in its result; None where it did not get so far as to be a run.
        made, saved: steps.
        again: how it was gone on with.
        truth: in the end.
        all_made: steps, of both lives.
        litter: what is left of files that were not finished.
    """

    code: int
    output: str
    seconds: float
    left_over: list[int]
    status: str | None
    made: int
    saved: int
    again: Program
    truth: Truth | None
    all_made: int
    litter: list[Path]


def stop(desk: Path, phase: str, workers: int, number: signal.Signals) -> Stopped:
    kind, place, delay = PHASES[phase]
    arguments, folder = typed(kind, workers=workers), desk / "run"
    program = type_in(desk, *arguments, strike=Strike(place, number=number, delay=delay))
    code = program.wait()
    assert program.struck is not None, program.output
    seconds, left_over = time.monotonic() - program.struck, processes_of(program.pid)
    made, saved = steps_made(desk), steps_saved(desk)
    begun = (folder / "run.json").exists()
    status = json.loads((folder / "result.json").read_text())["status"] if begun else None
    again = type_in(desk, *((f"resume={folder}",) if begun else arguments))
    truth = Truth.of(folder) if again.wait() == 0 else None
    return Stopped(
        *(code, program.output, seconds, left_over, status, made, saved, again, truth),
        *(steps_made(desk), unfinished(desk)),
    )


@pytest.fixture(scope="module")
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future]]:
    def work(phase: str, workers: int, number: signal.Signals) -> Stopped:
        return stop(tmp_path_factory.mktemp("stopped"), phase, workers, number)

    with two_at_a_time(work, request, first=[functools.partial(undisturbed, kind) for kind in KINDS]) as works:
        yield works


@pytest.mark.parametrize(("phase", "workers", "number"), CASES if FULL else ORDINARY)
def test_a_signal_in_any_phase_loses_nothing(
    phase: str,
    workers: int,
    number: signal.Signals,
    stopped: Mapping[str, Future[Stopped]],
    request: pytest.FixtureRequest,
) -> None:
    run = stopped[request.node.callspec.id].result()
    figures = {"exit_seconds": round(run.seconds, 2), "steps_made": run.made, "steps_saved": run.saved}
    record(ROW, phase=phase, workers=workers, signal=number.name, code=run.code, **figures)
    died = (phase, run.code) == ("composing", -number)  # before it has imported anything; 143 to a shell as well
    assert run.code == EXIT_CODES[number] or died, run.output
    assert run.seconds < LIMIT_SECONDS
    assert run.left_over == []
    assert died or "Traceback" not in run.output
    assert run.status in ("KILLED", None)
    assert run.made == steps_at(PHASES[phase][1]), "no step is begun after the signal"
    assert run.saved == run.made, "every step is saved"
    assert not run.made or "stopped; the run goes on by: python run.py resume=" in run.output
    assert run.truth == undisturbed(PHASES[phase][0]), run.again.output
    assert run.all_made == 2 * STEPS_OF_EPOCH, "no step is made twice"
    assert run.litter == []


def test_workers_die_with_a_process_that_is_killed_alone_and_the_run_goes_on_at_once(tmp_path: Path) -> None:
    """So does the system when memory runs out; they would hold the lock of the run's folder."""
    program = type_in(tmp_path, *typed("finetune", workers=2), strike=Strike("train 1 2", whom="process"))
    assert program.wait() == -9
    again = type_in(tmp_path, f"resume={tmp_path / 'run'}")
    assert again.wait() == 0, again.output
    assert processes_of(program.pid) == []
    assert Truth.of(tmp_path / "run") == undisturbed("finetune")


@pytest.mark.skipif(not FULL, reason="it waits for a server for ten seconds; scripts/faults does")
def test_a_tracking_server_that_hangs_holds_up_no_exit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # it takes calls, and never answers
        address = f"tracking.uri=http://127.0.0.1:{hung.getsockname()[1]}"
        arguments = (*typed("finetune", workers=0), "tracking=mlflow", address)
        program = type_in(tmp_path, *arguments, strike=Strike("train 1 2", number=signal.SIGTERM))
        assert program.wait() == 143, program.output
        assert program.struck is not None
        seconds = time.monotonic() - program.struck
        record(
            ROW, phase="training, server hung", workers=0, signal="SIGTERM", exit_seconds=round(seconds, 2), code=143
        )
        assert seconds < LIMIT_SECONDS
        assert steps_saved(tmp_path) == 2
