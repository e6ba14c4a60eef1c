"""One run of several processes is the run of one: the same images in the same order, the same result, one record."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.distributed.launched import FINETUNE, TINY, rank_processes, told, torchrun, wait_for
from tests.faults.processes import Truth

CLOSE = 1e-6


def finished(ranks: int, name: str, folder: Path, *arguments: str) -> Path:
    own = folder / name
    own.mkdir()
    code = torchrun(ranks, *TINY, *(arguments or FINETUNE), folder=own).wait(timeout=180)
    assert code == 0, told(own)
    [run] = (own / "outputs" / "runs").iterdir()
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def distance(one: Path, other: Path) -> float:
    theirs = weights(other)
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in weights(one).items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of 20 steps by one, two (twice) and four processes."""
    folder = tmp_path_factory.mktemp("ranks")
    counts = {"one": 1, "two": 2, "again": 2, "four": 4}
    return {name: finished(count, name, folder) for name, count in counts.items()}


@pytest.mark.slow
def test_parameters_are_those_of_one_process(runs: dict[str, Path]) -> None:
    assert distance(runs["one"], runs["two"]) < CLOSE
    assert distance(runs["one"], runs["four"]) < CLOSE


@pytest.mark.slow
def test_the_same_run_has_the_same_bits(runs: dict[str, Path]) -> None:
    assert Truth.of(runs["two"]) == Truth.of(runs["again"])


@pytest.mark.slow
def test_each_test_image_is_judged_once(runs: dict[str, Path]) -> None:
    one, four = ((runs[name] / "predictions.csv").read_text().splitlines() for name in ("one", "four"))
    assert [line.split(",")[0] for line in one] == [line.split(",")[0] for line in four]
    figures = [json.loads((runs[name] / "result.json").read_text()) for name in ("one", "four")]
    assert figures[0]["test/acc"] == figures[1]["test/acc"]
    assert figures[0]["test/loss"] == pytest.approx(figures[1]["test/loss"], abs=1e-5)


@pytest.mark.slow
def test_there_is_one_folder_and_one_run_in_mlflow(runs: dict[str, Path]) -> None:
    home = runs["four"].parents[2]  # where `finished` has seen that there is one folder
    client = MlflowClient(f"sqlite:///{home / 'outputs' / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.data.tags["tl.uid"] for run in found] == [json.loads((runs["four"] / "run.json").read_text())["uid"]]
    assert [run.info.status for run in found] == ["FINISHED"]
    assert "4 processes" in told(home)
    assert told(home).count("epoch 1/4") == 1


@pytest.mark.slow
def test_a_rank_that_is_told_to_stop_stops_all_after_the_same_step_with_one_checkpoint(tmp_path: Path) -> None:
    """And another number of processes goes on from there."""
    process = torchrun(2, *TINY, *FINETUNE, "epochs=400", folder=tmp_path)
    wait_for(tmp_path, "  2/400")
    os.kill(rank_processes(process.pid)[1], signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["error"]) == (
        "KILLED",
        "StoppedTogether: another process of this run was told to stop",
    )
    newest = sorted((run / "checkpoints").glob("epoch-*"))[-1].name
    assert "exitcode  : 143" in told(tmp_path)
    assert "-9" not in told(tmp_path)

    alone = torchrun(1, f"resume={run}", folder=tmp_path)
    wait_for(tmp_path, f"goes on after epoch {int(newest[6:10])}, step {int(newest[16:])}")
    wait_for(tmp_path, " 30/400")
    alone.terminate()
    alone.wait(timeout=60)


@pytest.mark.slow
def test_a_sweep_under_torchrun_is_refused_in_one_line(tmp_path: Path) -> None:
    assert torchrun(2, "-m", "seed=0,1", folder=tmp_path).wait(timeout=60) == 1
    [line] = [line for line in told(tmp_path).splitlines() if line.startswith("error: ")]
    assert line.startswith("error: -m under torchrun: the processes of torchrun train one run")


@pytest.mark.slow
def test_batchnorm_that_would_follow_parts_of_a_batch_is_refused(tmp_path: Path) -> None:
    assert torchrun(2, *TINY, "strategy=finetune", "strategy.batchnorm=train", folder=tmp_path).wait(timeout=60) == 1
    [line] = [line for line in told(tmp_path).splitlines() if line.startswith("error: ")]
    assert line.startswith("error: BatchNorm in train mode over several processes needs GPUs")


@pytest.mark.slow
def test_heads_learn_from_features_that_all_processes_have_extracted(tmp_path: Path) -> None:
    two, one = (
        finished(ranks, name, tmp_path, "strategy=feature", "runtime.cache=false")
        for name, ranks in {"two": 2, "one": 1}.items()
    )
    assert distance(one, two) < CLOSE
