"""`hydra/launcher=submitit_local`: a process that is warned of its end is queued again, and goes on where it was."""

import os
import signal
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from tests.sweep.conftest import Desk, processes_in, wait
from tests.sweep.sixteen import SIXTEEN, digests, in_the_middle, require_sixteen, writers
from tests.sweep.test_isolation import wait_for

if find_spec("submitit") is None:
    pytest.skip("submitit is not installed", allow_module_level=True)


@pytest.mark.slow
def test_a_pre_empted_process_is_queued_again_and_comes_to_the_bits_of_an_undisturbed_one(
    make_desk: Callable[[str], Desk],
) -> None:
    undisturbed = make_desk("undisturbed")
    assert undisturbed.sweep(*SIXTEEN, "sweep.max_heads=8").code == 0
    desk = make_desk("pre-empted")
    process = desk.start(*SIXTEEN, "sweep.max_heads=8", "hydra/launcher=submitit_local")
    wait_for(lambda: process.poll() is not None or in_the_middle(desk, 0))
    for pid, job in writers(desk):
        if job == 0:
            os.kill(pid, signal.SIGUSR2)  # submitit's signal, by which Slurm warns
    ended = wait(process)
    assert ended.code == 0, ended.err
    require_sixteen(desk)
    log = (desk.sweep_folder / "0" / "job.log").read_text()
    assert log.count("starts on") == 2
    assert "received SIGUSR2: queued again, to go on from its checkpoint" in log
    assert "goes on after epoch" in log
    waiting = [entry for entry in desk.ledger() if entry.get("cause") == "received SIGUSR2"]
    assert {entry["state"] for entry in waiting} == {"PLANNED"}
    assert digests(desk) == digests(undisturbed)
    assert processes_in(desk.folder) == []
