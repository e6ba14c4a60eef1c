"""The order of an epoch over shards: each image once, near its shard, the same for whoever reads it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.shards import packed, shards
from tests.watching import Watched
from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.sampling import balanced, shuffled
from tl_experiments.data.shard_order import ByShards
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, Normalise

CANVAS = Canvas(size=8, crop=8, interpolation="bilinear")
PLAIN = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def of_shards(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    buffer=st.integers(1, 100),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_sample_comes_once_and_not_far_from_its_place(sizes: list[int], buffer: int, seed: int) -> None:
    belongs = of_shards(sizes)
    sampler, labels = ByShards(shuffled, shards=belongs, buffer=buffer), np.zeros(len(belongs), dtype=np.int64)
    order = sampler(labels, seed=seed, epoch=1)
    assert sorted(order.samples) == list(range(len(belongs)))
    assert (order.draws == order.samples).all()
    in_line = ByShards(shuffled, shards=belongs, buffer=1)(labels, seed=seed, epoch=1).samples
    assert len(np.flatnonzero(np.diff(belongs[in_line]))) == len(sizes) - 1  # each shard in one piece
    place = np.empty(len(in_line), dtype=np.int64)
    place[in_line] = np.arange(len(in_line))
    assert np.abs(place[order.samples] - np.arange(len(in_line))).max() < buffer


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    sampler, labels = ByShards(shuffled, shards=of_shards([50] * 8), buffer=60), np.zeros(400, dtype=np.int64)
    one = sampler(labels, seed=0, epoch=1).samples
    assert (sampler(labels, seed=0, epoch=1).samples == one).all()
    assert (sampler(labels, seed=0, epoch=2).samples != one).any()
    assert (sampler(labels, seed=1, epoch=1).samples != one).any()
    assert len(set(one[:50] // 50)) > 1, "the first fifty are of one shard, so that nothing was mixed"
    firsts = {int(sampler(labels, seed=0, epoch=epoch).samples[0] // 50) for epoch in range(40)}
    assert len(firsts) > 4, "epochs begin with the same shards"


def test_balanced_samples_are_those_that_they_would_be_elsewhere() -> None:
    labels = np.array([0] * 90 + [1] * 10)[np.random.default_rng(0).permutation(100)]
    sampler = ByShards(balanced, shards=of_shards([20] * 5), buffer=10)
    order, free = sampler(labels, seed=3, epoch=1), balanced(labels, seed=3, epoch=1)
    assert sorted(zip(order.samples, order.draws, strict=True)) == sorted(zip(free.samples, free.draws, strict=True))
    assert len(set(order.draws)) == 100
    assert 30 < labels[order.samples].sum() < 70


@pytest.fixture
def train(make_folder: Callable[..., Path], tmp_path: Path) -> Split:
    packed(make_folder({"a": 40, "b": 40}, tmp_path / "root"), tmp_path / "packed", num_shards=4)
    split = shards(tmp_path / "packed").train
    return Split(split.name, Watched(split.source), split.indices)


def batches(train: Split, *, workers: int = 0, kept: bool = False) -> ImageBatches:
    images = load_images(train, canvas=CANVAS, workers=workers, memory_bytes=10**6 if kept else 0)
    return ImageBatches(
        images=images,
        size=8,
        normalise=PLAIN,
        batch_size=6,
        device=torch.device("cpu"),
        seed=7,
        sampler=by_shards(images),
    )


def by_shards(images: Images) -> ByShards:
    assert images.shards is not None
    return ByShards(shuffled, shards=images.shards, buffer=15)


def decoded(train: Split) -> list[int]:
    source = train.source
    assert isinstance(source, Watched)
    return source.decoded


def test_an_epoch_goes_on_in_its_middle_and_reads_nothing_that_was_seen(train: Split) -> None:
    whole = [batch.inputs for batch in batches(train).epoch(2)]
    seen = decoded(train).copy()
    assert sorted(seen) == sorted(train.indices)
    decoded(train).clear()
    rest = [batch.inputs for batch in batches(train).epoch(2, skip=4)]
    assert decoded(train) == seen[24:]
    assert all(torch.equal(one, other) for one, other in zip(rest, whole[4:], strict=True))


def test_workers_and_memory_change_nothing(train: Split) -> None:
    whole = torch.cat([batch.inputs for batch in batches(train).epoch(1)])
    for same in (batches(train, workers=2), batches(train, kept=True)):
        assert torch.equal(torch.cat([batch.inputs for batch in same.epoch(1)]), whole)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_each_batch(train: Split, ranks: int) -> None:
    images = load_images(train, canvas=CANVAS, workers=0, memory_bytes=0)
    order = by_shards(images)(images.labels.numpy(), seed=7, epoch=1).samples
    global_batches = np.array_split(order, 10)
    shares = [[np.array_split(batch, ranks)[rank] for batch in global_batches] for rank in range(ranks)]
    for number, batch in enumerate(global_batches):
        together = [next(images.batches([share[number]])) for share in shares]
        assert torch.equal(torch.cat(together), next(images.batches([batch])))
    assert sorted(np.concatenate([np.concatenate(share) for share in shares])) == list(range(len(images)))
