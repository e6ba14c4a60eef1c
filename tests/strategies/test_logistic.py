"""Logistic regression on frozen features is solved to its optimum, which scikit-learn knows too."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord, FinalRecord
from tl_experiments.engine.schedulers import constant
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.logistic import Logistic, solve_logistic
from tl_experiments.strategies.materials import Materials


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different scales, one of them constant, and labels that they tell something of."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 30, generator=generator)
    labels = (features[:, :4] + torch.randn(200, 4, generator=generator)).argmax(dim=1)
    features = features * torch.logspace(-2, 2, 30) + 3
    features[:, 7] = 0.25
    return features, labels


def trainer_of(workload: Workload) -> Trainer:
    """Under an optimizer that no bank has a rule for."""
    optimizers, schedulers = [lambda groups: torch.optim.Adagrad(groups, lr=1e-3)], [constant]
    updates = make_updates(workload.groups, optimizers=optimizers, schedulers=schedulers, fused=False)
    options = TrainingOptions(seed=0, log_every_steps=100)
    return Trainer(workload, updates=updates, device=torch.device("cpu"), options=options)


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
def test_the_head_is_scikit_learns_optimum(samples: tuple[torch.Tensor, torch.Tensor], c: float) -> None:
    features, labels = samples
    head = nn.Linear(30, 4)
    solve_logistic(head, features, labels, c=c, warm=False)
    scaler = StandardScaler().fit(features.double().numpy())
    scaled = scaler.transform(features.double().numpy())
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(scaled, labels.numpy())
    ours = head(features).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=2e-4)


def test_where_it_begins_does_not_matter_for_where_it_ends(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, labels = samples
    cold, warm = nn.Linear(30, 4), nn.Linear(30, 4)
    solve_logistic(cold, features, labels, c=0.1, warm=False)
    solve_logistic(warm, features, labels, c=0.01, warm=False)
    solve_logistic(warm, features, labels, c=0.1, warm=True)
    torch.testing.assert_close(warm(features).softmax(1), cold(features).softmax(1), atol=2e-4, rtol=0)


def test_every_c_is_an_epoch_and_the_best_on_val_is_kept(materialise: Callable[..., Materials]) -> None:
    workload = Logistic(num_c=3, min_c=1e-4, max_c=1.0).prepare(materialise(epochs=7))
    trainer = trainer_of(workload)
    epochs = [record for record in trainer.fit() if isinstance(record, EpochRecord)]
    [final] = [record for record in trainer.test() if isinstance(record, FinalRecord)]
    assert [dict(record.candidate) for record in epochs] == [{"c": pytest.approx(c)} for c in (1e-4, 1e-2, 1.0)]
    assert [record.metrics(0)["strategy/c"] for record in epochs] == [record.candidate["c"] for record in epochs]
    assert not any("lr" in record.metrics(0) for record in epochs)
    best = max(epochs, key=lambda record: (record.val_acc[0], -record.val_loss[0]))
    assert final.best_epoch == (best.epoch,)
    assert epochs[0].train_loss > epochs[1].train_loss > epochs[2].train_loss


def test_stopped_between_candidates_it_goes_on_to_the_same_bits(materialise: Callable[..., Materials]) -> None:
    strategy = Logistic(num_c=4, min_c=1e-4, max_c=1.0)
    whole, first, second = (strategy.prepare(materialise(seeds=(seed,))) for seed in (0, 0, 5))
    for _ in trainer_of(whole).fit():
        pass
    stopped, going_on = trainer_of(first), trainer_of(second)
    ends = (record for record in stopped.fit() if isinstance(record, EpochRecord))
    list(itertools.islice(ends, 2))
    going_on.load(stopped.state())
    for _ in going_on.fit():
        pass
    assert second.weights_sha256(0) == whole.weights_sha256(0)
