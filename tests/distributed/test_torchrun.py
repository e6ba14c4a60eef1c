"""torchrun starts one run of several processes: one folder, one run in MLflow, and all stop together."""

import json
import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.distributed.launched import (
    CLOSE,
    FINETUNE,
    TINY,
    Agent,
    distance,
    rank_processes,
    ranks,
    run_in,
    told,
    torchrun,
    wait_until_held,
    wait_until_told,
)
from tests.faults.scorecard import FULL

EPOCHS = "epochs=3"  # of which the last begins after the stop
STOPPED = ("KILLED", "StoppedTogether: a process of this run was told to stop")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nobody stops."""
    return ranks(1, *FINETUNE, EPOCHS, folder=tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["ddp", "fsdp"])
def test_a_rank_that_is_told_to_stop_stops_all_after_the_same_step_with_one_checkpoint(
    runtime: str, alone: Path, tmp_path: Path
) -> None:
    """And another number of processes goes on from there to the end, as one run with one record."""
    agent = Agent(tmp_path)
    first, last = agent.start(2, *TINY, *FINETUNE, EPOCHS, f"runtime={runtime}", hold_first="train 2 2")
    wait_until_held(first)
    last.signal(signal.SIGTERM, alone=True)
    first.signal(signal.SIGCONT, alone=True)
    assert (first.wait(), last.wait()) == (143, 143), first.output + last.output
    run = run_in(tmp_path)
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["error"]) == STOPPED
    newest = sorted((run / "checkpoints").glob("epoch-*"))[-1].name

    agent = Agent(tmp_path)  # of another launch
    [resumed] = agent.start(1, f"resume={run}")
    assert resumed.wait() == 0, resumed.output
    assert f"goes on after epoch {int(newest[6:10])}, step {int(newest[16:])}" in resumed.output
    assert distance(run, alone) < CLOSE
    client = MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.data.tags["tl.uid"] for run in found] == [result["uid"]]
    assert [run.info.status for run in found] == ["FINISHED"]
    steps = [point.step for point in client.get_metric_history(found[0].info.run_id, "val/acc")]
    assert steps == [1, 2, 3]
    assert "2 processes" in first.output


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="for the sake of time; above, the processes are forked")
def test_torchrun_need_not_kill_what_stops_together(tmp_path: Path) -> None:
    process = torchrun(2, *TINY, *FINETUNE, "epochs=40", folder=tmp_path)
    wait_until_told(tmp_path, " 2/40")
    os.kill(rank_processes(process.pid)[1], signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    assert "exitcode  : 143" in told(tmp_path)
    assert "-9" not in told(tmp_path)
    result = json.loads((run_in(tmp_path) / "result.json").read_text())
    assert (result["status"], result["error"]) == STOPPED


@pytest.mark.slow
def test_batchnorm_that_would_follow_parts_of_a_batch_is_refused(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    first, last = agent.start(2, *TINY, *FINETUNE, "strategy.batchnorm=train")
    assert (first.wait(), last.wait()) == (2, 1)  # told by the first alone
    [line] = [line for line in (first.output + last.output).splitlines() if line.startswith("error: ")]
    assert line.startswith("error: BatchNorm in train mode over several processes needs GPUs")
