"""Killed again and again and gone on with, a run ends with the bits of one that was left alone."""

import functools
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from tests.commands import SMALL
from tests.faults.processes import STEPS, Strike, Truth, server, two_at_a_time, unfinished
from tests.faults.scorecard import FULL, record

ROW = "kill -9 and resume"
TINY = (
    *("dataset.train_size=100", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1"),
    *("runtime.infer_batch_size=64", "epochs=3", "batch_size=8"),
)
KINDS = {
    "feature": ("strategy=feature", "lr=0.3", "scheduler=plateau", "scheduler.patience=0"),
    "finetune": ("strategy=finetune", *SMALL, "augmentation=light", "lr=0.02"),
}
STEPS_OF_EPOCH = 13
VAL_STEPS, TEST_STEPS = {"feature": 18, "finetune": 3}, {"feature": 45, "finetune": 6}
EVERY_STEP, EVERY_EPOCH = "checkpoint.every_minutes=1e-6", "checkpoint.every_minutes=10"
SAVE_SYNCS = 6  # of a checkpoint: two files, manifest, folder, parent; the last place is after them
END_SYNCS = 7  # of the model, and of the result
PARTS = 4  # a chain of lives takes every fourth strike of the story
CHAINS = [(kind, number) for kind in KINDS for number in range(2 * PARTS)]
ORDINARY = [("feature", 2), ("finetune", 7)]  # they see each epoch, evaluation, extraction, saving and the end
TRACKED = (1, 6)  # chains


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
    gaps = [before[-1] + 1 - after[0] for before, after in pairwise(lives)]
    assert all(gap >= 0 for gap in gaps), "no step is left out between two lives"
    return max(gaps, default=0)


def story(rng: random.Random, kind: str) -> Iterator[Strike]:
    """Yield strikes for every phase, in the order in which a run comes to them."""

    def at(place: str, most_seconds: float = 0.0) -> Strike:
        return Strike(place, delay=rng.uniform(0, most_seconds))

    work = "extracting" if kind == "feature" else "decoding"
    yield at("begin", 0.3)
    yield at(f"reading {rng.randint(0, 2)}", 0.01)
    yield at(f"{work} {rng.randint(0, 3)}", 0.05)
    for epoch in (1, 2, 3):
        yield at(f"train {epoch} {rng.randint(1, STEPS_OF_EPOCH - 1)}", rng.choice((0, 0.01)))
        yield at(f"val {epoch} {rng.randint(1, VAL_STEPS[kind])}", rng.choice((0, 0.01)))
        yield at(f"save 1 sync {rng.randint(1, SAVE_SYNCS - 1)}", rng.choice((0, 0.002)))
    yield at("epoch 3")
    yield at(f"test 3 {rng.randint(1, TEST_STEPS[kind])}", 0.01)
    yield at(f"test 3 {TEST_STEPS[kind]} sync {rng.randint(1, 4)}")  # while the model is made


def points_in_mlflow(desk: Path) -> list[tuple[str, int]]:
    """Return the status of every run in the store, and how many points of val/acc it has for each epoch, at most."""
    with closing(sqlite3.connect(desk / "outputs" / "mlflow.db")) as store:
        query = "select run_uuid, count(*) as points from metrics where key = 'val/acc' group by run_uuid, step"
        counts = f"select run_uuid, max(points) as most from ({query}) group by run_uuid"
        return store.execute(f"select status, most from runs join ({counts}) using (run_uuid)").fetchall()


@pytest.fixture(scope="module")
def chains(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future]]:
    def work(kind: str, number: int) -> tuple[Path, Lives]:
        desk = tmp_path_factory.mktemp("desk")
        tracking = "tracking=mlflow" if number in TRACKED else "tracking=none"
        strikes = list(story(random.Random(f"{kind} {number}"), kind))[number % PARTS :: PARTS]
        return desk, killed_until_done(desk, *KINDS[kind], *TINY, tracking, every(number), strikes=strikes)

    with two_at_a_time(work, request, first=[functools.partial(undisturbed, kind) for kind in KINDS]) as works:
        yield works


def every(number: int) -> str:
    """How often the runs of a chain save."""
    return EVERY_STEP if number // PARTS % 2 == 0 else EVERY_EPOCH


@pytest.mark.parametrize(("kind", "number"), CHAINS if FULL else ORDINARY)
def test_killed_in_every_phase_a_run_ends_with_the_same_bits(
    kind: str, number: int, chains: Mapping[str, Future[tuple[Path, Lives]]], request: pytest.FixtureRequest
) -> None:
    desk, lives = chains[request.node.callspec.id].result()
    same = Truth.of(desk / "run") == undisturbed(kind)
    kills = len(lives.kills)
    record(ROW, strategy=kind, kills=kills, same_bits=same, most_steps_lost=lives.lost, at=", ".join(lives.kills))
    assert same
    assert unfinished(desk) == []
    assert lives.lost <= (1 if every(number) == EVERY_STEP else STEPS_OF_EPOCH)
    assert kills >= 3, "strikes that miss show nothing"
    if number in TRACKED:
        assert points_in_mlflow(desk) == [("FINISHED", 1)]


@pytest.mark.skipif(not FULL, reason="for the sake of time; scripts/faults does")
def test_a_run_that_is_killed_between_its_result_and_the_word_of_it_is_closed(tmp_path: Path) -> None:
    last = Strike(f"test 3 {TEST_STEPS['feature']} sync {END_SYNCS}")  # the folder of the result is forced to the disk
    lives = killed_until_done(tmp_path, *KINDS["feature"], *TINY, "tracking=mlflow", strikes=[last])
    assert lives.kills == (last.place,)
    assert points_in_mlflow(tmp_path) == [("FINISHED", 1)]


SWEEP = (*KINDS["feature"], *TINY, "tracking=none", "seed=0,1", "lr=0.1,0.03", "hydra.sweep.dir=sweep")
SWEEP_STRIKES = (
    Strike("extracting 1", whom="sweep"),
    Strike("train 2 3", whom="sweep"),
    Strike("save 1 sync 3"),
    Strike("val 3 1", whom="process"),
    Strike("test 3 2", whom="sweep"),
    Strike(
        f"test 3 {TEST_STEPS['feature']} sync 10", whom="sweep"
    ),  # the first of four heads has a result, the second has not
)


@pytest.mark.skipif(not FULL, reason="scripts/faults does; in the ordinary suite a sweep is killed in tests/sweep")
def test_a_sweep_that_trains_heads_together_is_killed_and_gone_on_with(tmp_path: Path) -> None:
    def type_in(desk: Path, *arguments: str, strike: Strike | None = None) -> int:
        environment = {"TL_CACHE_DIR": str(desk / "cache")}
        program = server().start("-m", *arguments, cwd=desk, strike=strike, environment=environment)
        code = program.wait()
        assert strike is None or program.struck is not None, (strike, program.output)
        return code

    killed, left_alone = tmp_path / "killed", tmp_path / "left alone"
    for desk in (killed, left_alone):
        desk.mkdir()
    assert type_in(left_alone, *SWEEP) == 0
    arguments = (*SWEEP, EVERY_STEP)
    for strike in SWEEP_STRIKES:
        assert type_in(killed, *arguments, strike=strike) == (-9 if strike.whom == "sweep" else 1)
        arguments = ("sweep.resume=sweep",)
    done = {path: path.stat().st_mtime_ns for path in killed.glob("sweep/*/result.json")}
    assert 0 < len(done) < 4
    assert type_in(killed, *arguments) == 0
    same = sum(Truth.of(killed / "sweep" / str(job)) == Truth.of(left_alone / "sweep" / str(job)) for job in range(4))
    lost = lost_steps(killed)
    record(ROW, sweep="4 heads together", kills=len(SWEEP_STRIKES), same_bits=f"{same} of 4", most_steps_lost=lost)
    assert same == 4
    assert all(path.stat().st_mtime_ns == when for path, when in done.items()), "what had finished is not done again"
    assert lost <= 1
    assert unfinished(killed) == []
