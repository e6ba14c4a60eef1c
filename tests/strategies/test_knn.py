"""k nearest neighbours on frozen features: scikit-learn's votes, and a head like any other."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tl_experiments.models import neighbours
from tl_experiments.models.neighbours import Neighbours, NeighboursHead
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.knn import Knn
from tl_experiments.strategies.materials import Materials

TEMPERATURE = 0.07


@pytest.fixture
def head() -> NeighboursHead:
    """Of 50 images of 3 classes."""
    head = Neighbours(num_images=50, most=20, temperature=TEMPERATURE).make(feature_dim=8, num_classes=3, seed=0)
    assert isinstance(head, NeighboursHead)
    generator = torch.Generator().manual_seed(0)
    head.remember(torch.randn(50, 8, generator=generator), torch.arange(50) % 3)
    return head


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_votes_are_scikit_learns(head: NeighboursHead, k: int) -> None:
    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / TEMPERATURE)

    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(head.directions, head.labels)
    head.k.fill_(k)
    logits = head(features)
    assert logits.isfinite().all()
    np.testing.assert_allclose(logits.exp(), theirs.predict_proba(features).clip(1e-6), atol=1e-4)


def test_few_similarities_at_once_give_the_same_neighbours(
    head: NeighboursHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = head.directions * 3
    expected = head.nearest(features, are_own=True)
    monkeypatch.setattr(neighbours, "MOST_SIMILARITIES", 7 * 50)
    torch.testing.assert_close(head.nearest(features, are_own=True), expected)


def test_no_training_image_is_its_own_neighbour(head: NeighboursHead) -> None:
    assert (head.nearest(head.directions)[:, 0, 0] > 0.999).all()
    assert (head.nearest(head.directions, are_own=True)[:, 0, 0] < 0.999).all()


def test_the_model_answers_as_the_phase_did_and_is_restored_like_any_other(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    def prepared() -> Workload:
        return Knn(num_neighbours=[3, 500], temperature=TEMPERATURE).prepare(materialise())

    workload, other = prepared(), prepared()
    train(workload)
    [phase], [model] = workload.phases, workload.deployables
    assert phase.candidates == ({"k": 3}, {"k": 20})  # of 20 images
    batches = phase.open()
    votes = torch.cat([phase.module(batch.inputs)[0] for batch in batches.val.epoch(0)])
    images = torch.cat([batch.inputs for batch in materialise().open_images().val.epoch(0)])
    torch.testing.assert_close(model.eval()(images), votes, atol=1e-3, rtol=1e-3)
    other.deployables[0].load_state_dict(model.state_dict())
    assert other.weights_sha256(0) == workload.weights_sha256(0)
