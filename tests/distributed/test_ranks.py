"""A run of several processes is the run of one: same images, same order, and the same result but for rounding."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.launched import FINETUNE, ranks
from tests.faults.processes import Truth
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.torchrun import Launch
from tl_experiments.sweep.under_torchrun import arguments_now

CLOSE = 1e-6


def distance(one: Path, other: Path) -> float:
    own, theirs = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in own.items())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(home: Path) -> Path:
    """The run of 20 steps of one process."""
    return ranks(1, *FINETUNE, folder=home / "one")


@pytest.fixture(scope="module")
def two(home: Path) -> Path:
    return ranks(2, *FINETUNE, folder=home / "two")


@pytest.fixture(scope="module")
def four(home: Path) -> Path:
    return ranks(4, *FINETUNE, folder=home / "four")


@pytest.mark.slow
def test_parameters_are_those_of_one_process(one: Path, two: Path, four: Path) -> None:
    assert distance(one, two) < CLOSE
    assert distance(one, four) < CLOSE


@pytest.mark.slow
def test_the_same_run_has_the_same_bits(two: Path, home: Path) -> None:
    assert Truth.of(two) == Truth.of(ranks(2, *FINETUNE, folder=home / "again"))


@pytest.mark.slow
def test_each_image_of_the_test_split_is_judged_once(one: Path, four: Path) -> None:
    rows = [(run / "predictions.csv").read_text().splitlines() for run in (one, four)]
    assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]
    figures = [json.loads((run / "result.json").read_text()) for run in (one, four)]
    assert figures[0]["test/acc"] == figures[1]["test/acc"]
    assert figures[0]["test/loss"] == pytest.approx(figures[1]["test/loss"], abs=1e-5)


@pytest.mark.slow
def test_heads_learn_from_features_that_all_have_extracted(home: Path) -> None:
    own = [ranks(count, "runtime.cache=false", folder=home / f"features-{count}") for count in (1, 2)]
    assert distance(*own) < CLOSE


@pytest.mark.slow
def test_batches_in_parts_of_mixed_and_moved_images_add_up(home: Path) -> None:
    """11 images a step leave three processes unequal shares, in each of two parts."""
    several = ("batch_size=11", "accumulate_steps=2", "mixup_alpha=0.2", "augmentation=standard", "epochs=2")
    own = [ranks(count, *FINETUNE, *several, folder=home / f"parts-{count}") for count in (1, 3)]
    assert distance(*own) < CLOSE


@pytest.mark.slow
def test_a_model_in_shares_is_the_same_model(one: Path, home: Path) -> None:
    assert distance(one, ranks(2, *FINETUNE, "runtime=fsdp", folder=home / "shares")) < CLOSE


def test_a_sweep_under_torchrun_is_refused() -> None:
    launch = Launch(rank=0, count=2, local_rank=0, run_id="none", attempt=0)
    with pytest.raises(ConfigError, match="-m under torchrun: the processes of torchrun train one run"):
        arguments_now(launch, ["-m", "seed=0,1"])


def test_another_attempt_goes_on_with_the_run_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    typed, run = ["lr=0.1", "allow_targets=[mine]"], tmp_path / "run"
    first, second = (Launch(rank=0, count=2, local_rank=0, run_id="job", attempt=attempt) for attempt in (0, 1))
    assert arguments_now(first, typed) == typed
    first.remember(run)
    assert arguments_now(second, typed) == [*typed, f"hydra.run.dir={run}"]  # it died before it had begun
    run.mkdir()
    (run / "run.json").touch()
    assert arguments_now(second, typed) == [f"resume={run}", "allow_targets=[mine]"]
    first.forget()
    assert arguments_now(second, typed) == typed


def test_shares_of_a_giant_take_no_memory_before_they_are_filled(giant: torch.nn.Module) -> None:
    """ViT-g has 1.1 billion parameters; of eight processes each holds an eighth."""
    sizes = [parameter.numel() for parameter in giant.parameters()]
    held = [parameter.to_local().numel() for parameter in giant.parameters()]  # type: ignore[operator]
    assert all(parameter.is_meta for parameter in giant.parameters())
    assert sum(sizes) > 1.1e9
    assert sum(held) == pytest.approx(sum(sizes) / 8, rel=0.02)
