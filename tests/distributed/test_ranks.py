"""A run of several processes is the run of one: same images, same order, and the same result but for rounding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import SyncBatchNormAct

from tests.distributed.launched import CLOSE, FINETUNE, TINY, Agent, distance, ranks
from tests.faults.processes import Truth
from tl_experiments.config.errors import ConfigError
from tl_experiments.engine.synchronised import convert_norms
from tl_experiments.runtime.torchrun import Launch
from tl_experiments.strategies.base import batchnorm_modules
from tl_experiments.sweep.under_torchrun import arguments_now
from tl_experiments.verify.reproduce import reproduce
from tl_experiments.verify.verdict import Difference, Word


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
def test_one_process_does_it_again_and_is_named(two: Path, tmp_path: Path) -> None:
    verdict = reproduce(str(two), keep=tmp_path / "again")
    assert verdict.word is Word.CLOSE
    assert Difference("processes", then="2", now="1") in verdict.circumstances


@pytest.mark.slow
def test_each_image_of_the_test_split_is_judged_once(one: Path, four: Path) -> None:
    rows = [(run / "predictions.csv").read_text().splitlines() for run in (one, four)]
    assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]
    figures = [json.loads((run / "result.json").read_text()) for run in (one, four)]
    assert figures[0]["test/acc"] == figures[1]["test/acc"]
    assert figures[0]["test/loss"] == pytest.approx(figures[1]["test/loss"], abs=1e-5)


PARTS = ("accumulate_steps=2", "batch_size=11", "mixup_alpha=0.2", "augmentation=standard")
UNEVEN = ("runtime=fsdp", "batch_size=2", "accumulate_steps=4", "dataset.train_size=23", "epochs=1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "arguments"),
    [
        pytest.param(2, ("runtime.cache=false",), id="features that all have extracted"),
        pytest.param(3, (*FINETUNE, *PARTS), id="unequal shares of mixed and moved images in two parts"),
        # 7 images in the last step, computed 2 at a time, of which one process has 3.
        pytest.param(2, (*FINETUNE, *UNEVEN), id="a model in shares, and another number of images for each process"),
    ],
)
def test_what_is_shared_unequally_adds_up(count: int, arguments: tuple[str, ...], tmp_path: Path) -> None:
    one, several = (ranks(number, *arguments, folder=tmp_path / str(number)) for number in (1, count))
    assert distance(one, several) < CLOSE


@pytest.mark.slow
def test_a_model_in_shares_is_the_same_model(one: Path, home: Path) -> None:
    assert distance(one, ranks(2, *FINETUNE, "runtime=fsdp", folder=home / "shares")) < CLOSE


@pytest.mark.slow
def test_what_goes_wrong_on_one_rank_is_told_by_it_and_ends_the_others(home: Path) -> None:
    agent = Agent(home / "wrong")
    first, last = agent.start(2, *TINY, *FINETUNE, of_last={"TL_CACHE_LIMIT_GB": "much"})
    assert (first.wait(), last.wait()) == (1, 2)
    assert "error: rank 1: TL_CACHE_LIMIT_GB=much" in last.output
    assert "error: another process of this run does not answer" in first.output


def test_a_sweep_under_torchrun_is_refused() -> None:
    launch = Launch(rank=0, count=2, local_rank=0, run_id="none", attempt=0)
    with pytest.raises(ConfigError, match="-m under torchrun: the processes of torchrun train one run"):
        arguments_now(launch, ["-m", "seed=0,1"])


def test_another_attempt_goes_on_with_the_run_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))

    def launch(attempt: int, *typed: str) -> Launch:
        return Launch(rank=0, count=2, local_rank=0, run_id="job", attempt=attempt, typed=typed)

    typed, run = ("lr=0.1", "allow_targets=[mine]"), tmp_path / "a (run)"
    assert arguments_now(launch(0, *typed), typed) == [*typed]
    launch(0, *typed).remember(run)
    assert arguments_now(launch(1, *typed), typed) == [*typed, f"hydra.run.dir='{run}'"]  # before it had begun
    run.mkdir()
    (run / "run.json").touch()
    assert arguments_now(launch(1, *typed), typed) == [f"resume='{run}'", "allow_targets=[mine]"]
    assert arguments_now(launch(1, "lr=5"), ("lr=5",)) == ["lr=5"]  # another launch that is called alike
    again = ("resume=latest", "dataset.root=/new")
    launch(0, *again).remember(run)
    assert arguments_now(launch(1, *again), again) == [f"resume='{run}'", "dataset.root=/new"]
    launch(0).forget()
    assert arguments_now(launch(1, *again), again) == [*again]


def test_layers_that_are_synchronised_keep_their_activation() -> None:
    """A network is converted for each phase, and for a range test before."""
    network = torch.nn.Sequential(BatchNormAct2d(4), torch.nn.Linear(4, 2))
    for _ in range(2):
        convert_norms(network, batchnorm_modules(network))
    assert type(network[0]) is SyncBatchNormAct


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["finetune", "partial"])
def test_a_split_of_fewer_images_than_processes_is_seen_by_all(strategy: str, home: Path, tmp_path: Path) -> None:
    for split, count in {"train": 12, "val": 1, "test": 1}.items():
        for number in range(2 * count):
            place = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, len(split)]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)
    few = ("dataset=image_folder", f"dataset.root={tmp_path}", "dataset.train_size=null", "epochs=1", "tta=flip")
    own = ("strategy.batchnorm=eval", f"strategy={strategy}")
    assert ranks(3, *own, *few, folder=home / f"few-{strategy}").is_dir()


def test_shares_of_a_giant_take_no_memory_before_they_are_filled(giant: torch.nn.Module) -> None:
    """ViT-g has 1.1 billion parameters; of eight processes each holds an eighth."""
    sizes = [parameter.numel() for parameter in giant.parameters()]
    held = [parameter.to_local().numel() for parameter in giant.parameters()]  # type: ignore[operator]
    assert all(parameter.is_meta for parameter in giant.parameters())
    assert sum(sizes) > 1.1e9
    assert sum(held) == pytest.approx(sum(sizes) / 8, rel=0.02)
