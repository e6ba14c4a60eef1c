"""Mixing, sampling and the kind of head under the strategies that learn from what is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.mixing import Mixing
from tl_experiments.data.sampling import balanced
from tl_experiments.models.head_kinds import Cosine, HeadKind, Linear, Mlp
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.gradual import Gradual
from tl_experiments.strategies.lp_ft import LpFt
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.partial import Partial

BACKBONE: dict[str, Any] = {"batchnorm": "eval", "backbone_lr_scale": 1.0, "layer_decay": 1.0, "l2_sp": 0.0}
STRATEGIES: dict[str, Strategy] = {
    "feature": Feature("eval", None),
    "lp_ft": LpFt(probe_epochs=1, probe_lr_scale=1.0, **BACKBONE),
    "gradual": Gradual(every_epochs=1, **BACKBONE),
    "partial": Partial(num_stages=1, train=None, **BACKBONE),
}
MIXUP = Mixing(mixup_alpha=0.2, cutmix_alpha=0.0)
HEADS: dict[str, HeadKind] = {
    "dropout": Linear(dropout=0.5),
    "mlp": Mlp(hidden_dim=8, dropout=0.5),
    "cosine": Cosine(scale=5.0, learn_scale=True, dropout=0.0),
    "cosine, fixed": Cosine(scale=5.0, learn_scale=False, dropout=0.0),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_is_kept_of_images_that_are_mixed_and_the_reason_is_told(
    name: str, materialise: Callable[..., Materials], notes: Any
) -> None:
    [plain, *_] = STRATEGIES[name].prepare(materialise(epochs=6)).phases  # enough for all stages to thaw
    assert isinstance(plain.open().train, FeatureBatches)
    assert notes.notices == []
    [phase, *_] = STRATEGIES[name].prepare(materialise(mixing=MIXUP)).phases
    opened = phase.open()
    assert isinstance(opened.train, ImageBatches)
    assert all(batch.mixed for batch in opened.train.epoch(1))
    assert not [batch for split in opened.at_the_end() for batch in split.epoch(1) if batch.mixed]
    [notice] = [note for note in notes.notices if note.startswith((f"{phase.name}: ", "the frozen backbone"))]
    assert notice.endswith("because images are mixed (mixup_alpha, cutmix_alpha)")


@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=0, cutmix_alpha=0), MIXUP], ids=["kept", "images"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_sampler_chooses_what_training_sees(
    name: str, mixing: Mixing, materialise: Callable[..., Materials]
) -> None:
    materials = materialise(sampler=balanced, seeds=(3,), mixing=mixing)
    labels = materials.images.train.labels
    for phase in STRATEGIES[name].prepare(materials).phases:
        opened = phase.open()
        seen = torch.cat([batch.labels[0] for batch in opened.train.epoch(2)])
        assert torch.equal(seen, labels[balanced(labels.numpy(), seed=3, epoch=2).samples])
        assert torch.equal(torch.cat([b.labels[0] for b in opened.val.epoch(2)]), materials.images.val.labels)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_kind_is_trained_alone_on_features_that_are_kept(
    name: str,
    materialise: Callable[..., Materials],
    train: Callable[[Workload], None],
    moved: Callable[[Workload, Callable[[], object]], set[str]],
) -> None:
    workload = Feature("eval", None).prepare(materialise(head=HEADS[name]))
    assert isinstance(workload.phases[0].open().train, FeatureBatches)
    frozen = workload.frozen_sha256()
    head = {f"head.{own}" for own, _ in workload.deployables[0].head.named_parameters()}
    assert moved(workload, lambda: train(workload)) == workload.trained == head
    assert workload.frozen_sha256() == frozen
    again = Feature("eval", None).prepare(materialise(head=HEADS[name]))
    train(again)
    assert again.weights_sha256(0) == workload.weights_sha256(0)


@pytest.mark.parametrize("name", HEADS)
def test_behind_a_backbone_that_is_trained_the_head_is_of_that_kind_too(
    name: str, materialise: Callable[..., Materials]
) -> None:
    workload = STRATEGIES["lp_ft"].prepare(materialise(head=HEADS[name]))
    expected = HEADS[name].make(feature_dim=256, num_classes=10, seed=0)
    assert type(workload.deployables[0].head) is type(expected)
    head = {f"head.{own}" for own, _ in expected.named_parameters()}
    assert all(head <= phase.trained for phase in workload.phases)
