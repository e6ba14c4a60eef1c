"""A process is killed at any time; torchrun begins again, and the run ends with the bits of an undisturbed one."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.launched import (
    FINETUNE,
    TINY,
    Agent,
    rank_processes,
    ranks,
    run_in,
    told,
    torchrun,
    wait_until_held,
    wait_until_told,
)
from tests.faults.processes import Truth
from tests.faults.scorecard import FULL, count, record

RUN = (*TINY, *FINETUNE, f"epochs={count(ordinary=3, full=24)}")
SHARES = ("runtime=fsdp", "optimizer=adamw")  # which keeps two moments in shares
BEGUN = "reading"  # images: the first thing that a run says of its work
NUM_KILLS = 10


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """What a run of two processes comes to."""
    return Truth.of(ranks(2, *RUN, folder=tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def undisturbed_in_shares(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return Truth.of(ranks(2, *RUN, *SHARES, folder=tmp_path_factory.mktemp("shares")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "truth"),
    [pytest.param((), "undisturbed", id="copies"), pytest.param(SHARES, "undisturbed_in_shares", id="shares")],
)
def test_a_killed_rank_costs_no_bit(
    arguments: tuple[str, ...], truth: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each of the two once, in the midst of an epoch; the other one ends by itself, before torchrun would end it."""
    agent = Agent(tmp_path)
    for lost, place in enumerate(("train 2 3", "train 3 2")):
        attempt = agent.start(2, *RUN, *arguments, attempt=lost, hold_first=place)
        wait_until_held(attempt[0])
        attempt[lost].signal(signal.SIGKILL, alone=True)
        attempt[0].signal(signal.SIGCONT, alone=True)
        assert attempt[lost].wait() == -signal.SIGKILL
        assert attempt[1 - lost].wait() == 1, attempt[1 - lost].output
    first, last = agent.start(2, *RUN, *arguments, attempt=2)
    assert (first.wait(), last.wait()) == (0, 0), first.output + last.output
    assert "goes on after epoch 2, step 20" in first.output
    assert Truth.of(run_in(tmp_path)) == request.getfixturevalue(truth)


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="for the sake of time; above, the processes of the attempts are forked")
@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_torchrun_begins_again(number: int, undisturbed: Truth, tmp_path: Path) -> None:
    chance = random.Random(number)
    rank, epochs, delay = chance.randrange(2), chance.randrange(22), chance.uniform(0.0, 0.5)
    process = torchrun(2, *RUN, folder=tmp_path, options=("--max-restarts=1",))
    wait_until_told(tmp_path, f"epoch {epochs:2}/24" if epochs else BEGUN)
    time.sleep(delay)
    os.kill(rank_processes(process.pid)[rank], signal.SIGKILL)
    killed = time.monotonic()
    wait_until_told(tmp_path, BEGUN, count=2)
    detected = time.monotonic() - killed
    assert process.wait(timeout=180) == 0, told(tmp_path)
    record("rank killed", tried=f"rank {rank}", after_epoch=epochs, began_again_after=round(detected, 1))
    assert Truth.of(run_in(tmp_path)) == undisturbed
