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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """What a run of two processes comes to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = torchrun(2, *RUN, folder=folder)
    assert process.wait(timeout=180) == 0, told(folder)
    [run] = (folder / "outputs" / "runs").iterdir()
    return Truth.of(run)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_a_killed_rank_costs_no_bit(number: int, undisturbed: Truth, tmp_path: Path) -> None:
    chance = random.Random(number)
    rank, epochs, delay = chance.randrange(2), chance.randrange(22), chance.uniform(0.0, 0.5)
    process = torchrun(2, *RUN, folder=tmp_path, options=("--max-restarts=1",))
    wait_for(tmp_path, f"epoch {epochs:2}/24" if epochs else BEGUN)
    time.sleep(delay)
    os.kill(rank_processes(process.pid)[rank], signal.SIGKILL)
    killed = time.monotonic()
    wait_for(tmp_path, BEGUN, count=2)
    detected = time.monotonic() - killed
    assert process.wait(timeout=180) == 0, told(tmp_path)
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    record(f"rank killed: {rank}", after_epoch=epochs, began_again_after=round(detected, 1))
    assert Truth.of(run) == undisturbed
