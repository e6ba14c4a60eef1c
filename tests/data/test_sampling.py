"""What an epoch sees is a function of (seed, epoch): every image once, or every class equally often."""

import numpy as np
import pytest
import torch

from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.sampling import balanced, epoch_order, shuffled

LABELS = np.repeat([0, 1, 3], [900, 90, 10])  # class 2 has no sample


def test_shuffled_is_every_sample_once_with_its_own_number():
    order = shuffled(LABELS, seed=3, epoch=2)
    assert order.samples.tolist() == order.draws.tolist() == epoch_order(1000, seed=3, epoch=2).tolist()


def test_balanced_sees_every_class_and_every_sample_of_it_equally_often():
    epochs = [balanced(LABELS, seed=0, epoch=epoch).samples for epoch in range(200)]
    assert {len(samples) for samples in epochs} == {1000}
    seen = np.bincount(np.concatenate(epochs), minlength=1000) / 200
    by_class = [seen[label == LABELS].sum() for label in (0, 1, 3)]
    assert by_class == pytest.approx([1000 / 3] * 3, rel=0.01)
    assert seen[LABELS == 3] == pytest.approx([100 / 3] * 10, rel=0.06)
    assert seen[LABELS == 1] == pytest.approx([1000 / 270] * 90, rel=0.2)


def test_balanced_depends_on_seed_and_epoch_alone():
    def samples(seed: int, epoch: int) -> list[int]:
        return balanced(LABELS, seed=seed, epoch=epoch).samples.tolist()

    assert samples(0, 1) == samples(0, 1)
    assert len({tuple(samples(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4


def test_a_sample_that_comes_again_draws_anew():
    """The few images of a rare class, seen thirty times an epoch, are each time another view."""
    order = balanced(LABELS, seed=0, epoch=1)
    assert len(set(order.draws)) == 1000
    assert (order.draws % 1000).tolist() == order.samples.tolist()
    first = np.unique(order.samples, return_index=True)[1]
    assert order.draws[first].tolist() == order.samples[first].tolist()


def test_members_sample_as_they_would_alone():
    features = torch.arange(1000.0)[None, :, None]
    labels = torch.from_numpy(LABELS)

    def seen(*seeds: int) -> torch.Tensor:
        batches = FeatureBatches(
            features=features, labels=labels, batch_size=64, num_members=len(seeds), seeds=seeds, sampler=balanced
        )
        every = list(batches.epoch(1))
        assert len(every) == len(batches)
        for batch in every:
            assert torch.equal(labels[batch.inputs[..., 0].long()], batch.labels), "features belong to their labels"
        return torch.cat([batch.inputs[..., 0] for batch in every], dim=1)

    together = seen(4, 9)
    assert torch.equal(together[0], seen(4)[0])
    assert torch.equal(together[1], seen(9)[0])
    assert together[1].long().tolist() == balanced(LABELS, seed=9, epoch=1).samples.tolist()
