"""Killed again and again and gone on with, a run ends with the bits of one that was left alone."""

import functools
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from tests.faults.processes import STEPS, Program, Strike, Truth, server, unfinished
from tests.faults.scorecard import count, record

ROW = "kill -9 and resume"
TINY = (
    *("dataset.train_size=100", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1"),
    *("runtime.infer_batch_size=64", "epochs=3", "batch_size=8", "scheduler=plateau"),
)
SMALL = ("backbone=timm", "backbone.name=test_efficientnet", "backbone.weights=null", "augmentation=light")
KINDS = {"feature": ("strategy=feature", "lr=0.1"), "finetune": ("strategy=finetune", *SMALL, "lr=0.02")}
STEPS_OF_EPOCH, VAL_STEPS, TEST_STEPS = 13, 3, 6
EVERY_STEP, EVERY_EPOCH = "checkpoint.every_minutes=1e-6", "checkpoint.every_minutes=10"
SAVE_SYNCS = 6  # of a checkpoint: two files, manifest, folder, parent; the last place is after them
END_SYNCS = 12


@functools.cache
def undisturbed(kind: str) -> Truth:
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        arguments = (*KINDS[kind], *TINY, "tracking=none", "hydra.run.dir=run")
        program = server().start(*arguments, cwd=desk, environment={"TL_CACHE_DIR": str(desk / "cache")})
        assert program.wait() == 0, program.output
        return Truth.of(desk / "run")


@dataclass(frozen=True)
class Lives:
    """What a run went through.

    Attributes:
        kills: places at which it was killed.
        lost: the most steps that a life had to make again.
    """

    kills: tuple[str, ...]
    lost: int


def killed_until_done(desk: Path, *arguments: str, strikes: Sequence[Strike]) -> Lives:
    """Type a command, and go on with what is killed, until a life ends well."""
    folder, kills = desk / "run", []
    left = list(strikes)
    while True:
        begun = (folder / "run.json").exists()
        typed = (f"resume={folder}",) if begun else (*arguments, f"hydra.run.dir={folder}")
        strike = left.pop(0) if left else None
        environment = {"TL_CACHE_DIR": str(desk / "cache")}
        program = server().start(*typed, cwd=desk, strike=strike, environment=environment)
        if program.wait() == 0:
            if "the run has finished" in program.output or (strike is None and not left):
                return Lives(tuple(kills), lost_steps(desk))
            continue
        assert program.code == -9, (strike, program.output)
        assert strike is not None
        kills.append(strike.place)


def lost_steps(desk: Path) -> int:
    """Return the most steps that the next life made again."""
    lines = [line.split() for line in (desk / STEPS).read_text().splitlines()]
    numbers = [(pid, (int(epoch) - 1) * STEPS_OF_EPOCH + int(step)) for pid, epoch, step in lines]
    lives = [[number for _, number in steps] for _, steps in groupby(numbers, key=lambda line: line[0])]
    assert all(life == list(range(life[0], life[-1] + 1)) for life in lives), "a life leaves no step out"
    gaps = [before[-1] + 1 - after[0] for before, after in zip(lives, lives[1:], strict=False)]
    assert all(gap >= 0 for gap in gaps), "no step is left out between two lives"
    return max(gaps, default=0)


def story(rng: random.Random, kind: str) -> Iterator[Strike]:
    """Yield strikes for every phase, in the order in which a run comes to them."""

    def at(place: str, most_seconds: float = 0.0) -> Strike:
        return Strike(place, delay=rng.uniform(0, most_seconds))

    work = "extracting" if kind == "feature" else "decoding"
    yield at("begin", 1.0)
    yield at(f"reading {rng.randint(0, 2)}", 0.01)
    yield at(f"{work} {rng.randint(0, 3)}", 0.05)
    for epoch in (1, 2, 3):
        yield at(f"train {epoch} {rng.randint(1, STEPS_OF_EPOCH - 1)}", rng.choice((0, 0.01)))
        yield at(f"val {epoch} {rng.randint(1, VAL_STEPS)}", rng.choice((0, 0.01)))
        yield at(f"save 1 sync {rng.randint(1, SAVE_SYNCS - 1)}", rng.choice((0, 0.002)))
    yield at("epoch 3")
    yield at(f"test 3 {rng.randint(1, TEST_STEPS)}", 0.01)
    yield at(f"test 3 {TEST_STEPS} sync {rng.randint(1, END_SYNCS)}")


def check(desk: Path, kind: str, lives: Lives, *, most_lost: int) -> None:
    assert Truth.of(desk / "run") == undisturbed(kind)
    assert unfinished(desk) == []
    assert lives.lost <= most_lost


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_every_phase_a_run_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    undisturbed(kind)
    total, worst, places = 0, 0, set()
    for number in range(count(ordinary=1, full=4)):
        rng = random.Random(f"{kind} {number}")
        desk = tmp_path / str(number)
        desk.mkdir()
        every = (EVERY_STEP, EVERY_EPOCH)[number % 2]
        tracking = "tracking=mlflow" if number % 4 == 3 else "tracking=none"
        strikes = list(story(rng, kind))
        lives = killed_until_done(desk, *KINDS[kind], *TINY, tracking, every, strikes=strikes)
        check(desk, kind, lives, most_lost=1 if every == EVERY_STEP else STEPS_OF_EPOCH)
        total, worst = total + len(lives.kills), max(worst, lives.lost)
        places |= {place.split()[0] for place in lives.kills}
        print(lives)
        print([s.place for s in strikes if s.place not in lives.kills])
    record(ROW, strategy=kind, kills=total, same_bits=total, most_steps_lost=worst, phases=", ".join(sorted(places)))
