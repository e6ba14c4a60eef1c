"""A process is killed at any time; torchrun begins again, and the run ends with the bits of an undisturbed one."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.launched import FINETUNE, TINY, rank_processes, told, torchrun, wait_for
from tests.faults.processes import Truth
from tests.faults.scorecard import count, record

RUN = (*TINY, *FINETUNE, "epochs=24")
BEGUN = "reading"  # images: the first thing that a run says of its work
NUM_KILLS = count(ordinary=1, full=10)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, float]:
    """What a run of two processes comes to, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = torchrun(2, *RUN, folder=folder)
    wait_for(folder, BEGUN)
    start = time.monotonic()
    assert process.wait(timeout=180) == 0, told(folder)
    [run] = (folder / "outputs" / "runs").iterdir()
    return Truth.of(run), time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_a_killed_rank_costs_no_bit(number: int, undisturbed: tuple[Truth, float], tmp_path: Path) -> None:
    truth, seconds = undisturbed
    chance = random.Random(number)
    rank, delay = chance.randrange(2), chance.uniform(0.05, 0.8) * seconds
    process = torchrun(2, *RUN, folder=tmp_path, options=("--max-restarts=1",))
    wait_for(tmp_path, BEGUN)
    time.sleep(delay)
    there = rank_processes(process.pid)
    os.kill(there.get(rank, there[0]), signal.SIGKILL)  # the others have ended when the first one writes its results
    killed = time.monotonic()
    wait_for(tmp_path, BEGUN, count=2)
    detected = time.monotonic() - killed
    assert process.wait(timeout=180) == 0, told(tmp_path)
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    record(f"rank killed: {rank}", after_seconds=round(delay, 1), began_again_after=round(detected, 1))
    assert Truth.of(run) == truth
