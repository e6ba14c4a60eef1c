"""SIGTERM or Ctrl-C at any moment: the run saves, says so in time and in its exit code, and goes on with the same bits."""

import functools
import json
import signal
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.processes import STEPS, Strike, Truth, processes_of, server, unfinished
from tests.faults.scorecard import FULL, record

ROW = "SIGTERM and SIGINT"
LIMIT_SECONDS = 20.0
SMALL = ("backbone=timm", "backbone.name=test_efficientnet", "backbone.weights=null", "augmentation=light")
KINDS = {"feature": ("strategy=feature",), "finetune": ("strategy=finetune", *SMALL)}
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
    "decoding": ("finetune", "decoding 1", 0.0),
    "extracting": ("feature", "extracting 2", 0.0),
    "training": ("finetune", "train 1 2", 0.0),
    "training, 2nd epoch": ("finetune", "train 2 3", 0.01),
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
    ("saving", 0, signal.SIGTERM),
    ("test", 2, signal.SIGINT),
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


def type_in(desk: Path, *arguments: str, strike: Strike | None = None):
    return server().start(*arguments, cwd=desk, strike=strike, environment={"TL_CACHE_DIR": str(desk / "cache")})


def typed(kind: str, *, workers: int) -> tuple[str, ...]:
    return (*KINDS[kind], *TINY, f"dataset.root={images()}", f"runtime.workers={workers}", "hydra.run.dir=run")


@functools.cache
def undisturbed(kind: str) -> Truth:
    with tempfile.TemporaryDirectory() as folder:
        program = type_in(Path(folder), *typed(kind, workers=0))
        assert program.wait() == 0, program.output
        return Truth.of(Path(folder) / "run")


def steps_made(desk: Path) -> int:
    path = desk / STEPS
    return len(path.read_text().splitlines()) if path.exists() else 0


def steps_saved(desk: Path) -> int:
    found = (desk / "run" / "checkpoints").glob("epoch-*")
    return max((int(path.name.rpartition("-")[2]) for path in found), default=0)


@pytest.mark.parametrize(("phase", "workers", "number"), CASES if FULL else ORDINARY)
def test_a_signal_in_any_phase_loses_nothing(phase: str, workers: int, number: signal.Signals, tmp_path: Path) -> None:
    kind, place, delay = PHASES[phase]
    expected = undisturbed(kind)
    arguments = typed(kind, workers=workers)
    program = type_in(tmp_path, *arguments, strike=Strike(place, number=number, delay=delay))
    code = program.wait()
    assert program.struck is not None, program.output
    seconds = time.monotonic() - program.struck
    left_over = processes_of(program.pid)
    begun = (tmp_path / "run" / "run.json").exists()
    record(ROW, phase=phase, workers=workers, signal=number.name, exit_seconds=round(seconds, 2), code=code)
    assert code == EXIT_CODES[number] or (phase, code) == ("composing", -number), program.output  # a shell's 143
    assert seconds < LIMIT_SECONDS
    assert left_over == []
    assert "Traceback" not in program.output
    assert steps_saved(tmp_path) == steps_made(tmp_path), "every step is saved"
    if steps_made(tmp_path):
        assert "run goes on from" in program.output
    if begun:
        assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "KILLED"
    again = type_in(tmp_path, *((f"resume={tmp_path / 'run'}",) if begun else arguments))
    assert again.wait() == 0, again.output
    assert Truth.of(tmp_path / "run") == expected
    assert steps_made(tmp_path) == 2 * STEPS_OF_EPOCH, "no step is made twice"
    assert unfinished(tmp_path) == []
