"""`hydra/launcher=submitit_local`: a process that is warned of its end is queued again, and goes on where it was."""

import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import wait_for
from tests.faults.scorecard import count
from tests.sweep.conftest import Desk, end_of, processes_in
from tests.sweep.shared_sweep import HELD, digests, held, in_the_middle, require_once, writers

if find_spec("submitit") is None:
    pytest.skip("submitit is not installed", allow_module_level=True)


SEEDS = count(ordinary=2, full=8)


@pytest.mark.slow
def test_a_pre_empted_process_is_queued_again_and_comes_to_the_bits_of_an_undisturbed_one(
    make_desk: Callable[[str], Desk], tmp_path: Path
) -> None:
    undisturbed = make_desk("undisturbed")
    assert undisturbed.sweep(*HELD, "seed=0").code == 0
    desk = make_desk("pre-empted")
    seeds = ",".join(map(str, range(SEEDS)))
    together = ("sweep.max_heads=2", "hydra/launcher=submitit_local")
    with held(desk):
        program = desk.begin(f"seed={seeds}", *HELD, *together, logs=tmp_path)
        wait_for(lambda: program.ended or in_the_middle(desk, 0))
        for pid, job in writers(desk):
            if job == 0:
                os.kill(pid, signal.SIGUSR2)  # submitit's signal, by which Slurm warns
    ended = end_of(program)
    assert ended.code == 0, ended.err
    require_once(desk, finished=2 * SEEDS)
    log = (desk.sweep_folder / "0" / "job.log").read_text()
    assert log.count("starts on") == 2
    assert "received SIGUSR2: queued again, to go on from its checkpoint" in log
    assert "goes on after epoch" in log
    waiting = [entry for entry in desk.ledger() if entry.get("cause") == "received SIGUSR2"]
    assert {entry["state"] for entry in waiting} == {"PLANNED"}
    found = digests(desk)
    assert {job: found[job] for job in (0, 1)} == digests(undisturbed)
    assert processes_in(desk.folder) == []
