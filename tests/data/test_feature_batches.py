"""Each member gets the features, views and labels that it would get alone, as a function of (seed, epoch, sample)."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.images import load_images
from tl_experiments.data.sampling import epoch_order
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.runtime.ranks import Ranks

CPU = torch.device("cpu")


def feature_batches(
    num_samples: int, *, seeds: tuple[int, ...] | None, num_members: int, num_views: int = 1, batch_size: int = 8
) -> FeatureBatches:
    """Features that tell of which sample (first) and which view (second) they are."""
    samples, views = torch.arange(num_samples).float(), torch.arange(num_views).float()
    features = torch.stack([samples.expand(num_views, -1), views[:, None].expand(-1, num_samples)], dim=-1)
    return FeatureBatches(
        features=features,
        labels=torch.arange(num_samples),
        batch_size=batch_size,
        num_members=num_members,
        seeds=seeds,
    )


def seen(batches: FeatureBatches, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and views of a whole epoch, (K, N) int64."""
    every = list(batches.epoch(epoch))
    labels = torch.cat([batch.labels for batch in every], dim=1)
    inputs = torch.cat([batch.inputs for batch in every], dim=1).expand(len(labels), -1, -1)
    assert torch.equal(inputs[..., 0].long(), labels), "features belong to their labels"
    return labels, inputs[..., 1].long()


def test_each_member_sees_features_in_the_order_that_it_would_have_alone():
    batches = feature_batches(20, seeds=(0, 3), num_members=2)
    every = list(batches.epoch(1))
    assert [batch.inputs.shape for batch in every] == [(2, 8, 2), (2, 8, 2), (2, 4, 2)]
    labels, _ = seen(batches, 1)
    for member, seed in enumerate((0, 3)):
        assert labels[member].tolist() == epoch_order(20, seed=seed, epoch=1).tolist()


def test_features_come_in_the_order_of_images(make_split: Callable[..., Split]):
    """Training a head on cached features is then training it behind the frozen backbone."""
    canvas = Canvas(size=12, crop=12, interpolation="bilinear")
    images = load_images(make_split(17, num_classes=17), canvas=canvas, workers=0, memory_bytes=10**9)
    normalise = Normalise((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    on_images = ImageBatches(images=images, size=12, normalise=normalise, batch_size=8, device=CPU, seed=4)
    expected = torch.cat([batch.labels[0] for batch in on_images.epoch(2)])
    assert len(expected) == 16, "a single last sample is left out of both"
    labels, _ = seen(feature_batches(17, seeds=(4,), num_members=1), 2)
    assert torch.equal(labels[0], expected)


def test_without_seeds_all_members_see_the_first_view_of_all_in_order():
    batches = feature_batches(17, seeds=None, num_members=3, num_views=2)
    labels, views = seen(batches, 0)
    assert (len(batches), batches.num_samples) == (3, 17)
    assert labels.tolist() == [list(range(17))] * 3
    assert not views.any()
    last = list(batches.epoch(0))[-1]
    assert (last.inputs.shape, last.labels.shape) == ((1, 1, 2), (3, 1))


def test_members_of_one_seed_share_their_features():
    """A sweep of learning rates reads each feature once."""
    shared, alone = (feature_batches(20, seeds=seeds, num_members=len(seeds)) for seeds in ((5, 5, 5), (5,)))
    for batch, expected in zip(shared.epoch(3), alone.epoch(3), strict=True):
        assert torch.equal(batch.inputs, expected.inputs)
        assert batch.labels.shape == (3, expected.labels.shape[1])
        assert torch.equal(batch.labels, expected.labels.expand(3, -1))


def test_seeds_must_match_the_members():
    with pytest.raises(ValueError, match="2 seeds for 3 members"):
        feature_batches(8, seeds=(0, 1), num_members=3)


def test_every_view_is_drawn_equally_often_and_anew_in_each_epoch():
    batches = feature_batches(3000, seeds=(0,), num_members=1, num_views=3)
    by_sample = []
    for epoch in (1, 2):
        labels, views = seen(batches, epoch)
        assert np.bincount(views[0].numpy(), minlength=3) / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)
        by_sample.append(views[0][labels[0].argsort()])
    assert (by_sample[0] == by_sample[1]).double().mean() == pytest.approx(1 / 3, abs=0.04), "epochs are independent"


def test_which_view_is_seen_depends_on_seed_epoch_and_sample_alone():
    def views_of(seeds: tuple[int, ...], *, member: int = 0, num_samples: int = 64, batch_size: int = 8) -> list[int]:
        batches = feature_batches(num_samples, seeds=seeds, num_members=len(seeds), num_views=4, batch_size=batch_size)
        labels, views = seen(batches, 5)
        return views[member][labels[member].argsort()].tolist()

    alone = views_of((3,))
    assert views_of((0, 3, 7), member=1) == alone
    assert views_of((3, 3), member=1) == alone
    assert views_of((3,), batch_size=5) == alone
    assert views_of((3,), num_samples=32) == alone[:32]
    assert views_of((4,)) != alone


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_batch_as_it_is_for_one(count: int):
    batches = feature_batches(19, seeds=(0, 3), num_members=2, num_views=2)
    shared = [list(batches.epoch(1, ranks=Ranks(rank, count))) for rank in range(count)]
    for whole, parts in zip(batches.epoch(1), zip(*shared, strict=True), strict=True):
        own = [part for part in parts if not part.stands_in]
        for member in range(2):
            seen = torch.cat([part.inputs[member] for part in own]).tolist()
            assert sorted(seen) == sorted(whole.inputs[member].tolist())
