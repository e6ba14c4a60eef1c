"""torchrun starts one run of several processes: one folder, one run in MLflow, and all stop together."""

import json
import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.distributed.launched import FINETUNE, TINY, rank_processes, told, torchrun, wait_for


@pytest.mark.slow
def test_a_rank_that_is_told_to_stop_stops_all_after_the_same_step_with_one_checkpoint(tmp_path: Path) -> None:
    """And another number of processes goes on from there to the end, as one run with one record."""
    process = torchrun(2, *TINY, *FINETUNE, "epochs=40", folder=tmp_path)
    wait_for(tmp_path, " 2/40")
    os.kill(rank_processes(process.pid)[1], signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    assert "exitcode  : 143" in told(tmp_path)
    assert "-9" not in told(tmp_path)
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    stopped = "StoppedTogether: a process of this run was told to stop"
    assert (result["status"], result["error"]) == ("KILLED", stopped)
    newest = sorted((run / "checkpoints").glob("epoch-*"))[-1].name

    assert torchrun(1, f"resume={run}", folder=tmp_path).wait(timeout=90) == 0, told(tmp_path)
    assert f"goes on after epoch {int(newest[6:10])}, step {int(newest[16:])}" in told(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.data.tags["tl.uid"] for run in found] == [result["uid"]]
    assert [run.info.status for run in found] == ["FINISHED"]
    steps = [point.step for point in client.get_metric_history(found[0].info.run_id, "val/acc")]
    assert steps == list(range(1, 41))
    assert "2 processes" in told(tmp_path)


@pytest.mark.slow
def test_batchnorm_that_would_follow_parts_of_a_batch_is_refused(tmp_path: Path) -> None:
    assert torchrun(2, *TINY, *FINETUNE, "strategy.batchnorm=train", folder=tmp_path).wait(timeout=60) == 1
    [line] = [line for line in told(tmp_path).splitlines() if line.startswith("error: ")]
    assert line.startswith("error: BatchNorm in train mode over several processes needs GPUs")
