"""Under feature extraction the head learns and nothing of the backbone moves, its running statistics included."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import FeatureBatches, ImageBatches
from tl_experiments.models.heads import HeadBank, make_head
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Materials, Workload
from tl_experiments.strategies.feature import Feature, FrozenBackbone

HEAD = {"head.weight", "head.bias"}
RANDOM = Augmentation(hflip_prob=0.0, rotation_degrees=15.0, scale=(0.7, 1.0), ratio=(0.9, 1.1))
# Random in name: no image is ever mirrored, so that it takes the path of images and changes nothing.
HARMLESS = Augmentation(hflip_prob=1e-300, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0))
Statistics = Callable[[Workload], set[str]]
Moved = Callable[[Workload, Callable[[], object]], set[str]]


@pytest.mark.parametrize("augmentation", [None, RANDOM], ids=["features", "images"])
def test_nothing_of_the_backbone_moves(
    materialise: Callable[..., Materials],
    statistics: Statistics,
    train: Callable[..., None],
    moved: Moved,
    augmentation: Augmentation | None,
) -> None:
    workload = Feature("eval").prepare(materialise(**({"augmentation": augmentation} if augmentation else {})))
    frozen, whole = workload.frozen_sha256(), workload.weights_sha256(0)
    assert moved(workload, lambda: train(workload)) == HEAD
    assert workload.trained == HEAD
    assert len(statistics(workload)) > 100
    assert workload.frozen_sha256() == frozen
    assert workload.weights_sha256(0) != whole


def test_the_digest_catches_a_drift_that_requires_grad_does_not_stop(materialise: Callable[..., Materials]) -> None:
    materials = materialise()
    workload = Feature("eval").prepare(materials)
    batch = next(materials.image_batches(materials.images.train, seed=0).epoch(1))
    frozen = workload.frozen_sha256()
    assert not any(parameter.requires_grad for parameter in materials.backbone.parameters())
    workload.deployables[0].eval()(batch.inputs)
    assert workload.frozen_sha256() == frozen
    workload.deployables[0].train()(batch.inputs)
    assert workload.frozen_sha256() != frozen


@pytest.mark.parametrize("position", [0, -1])
def test_the_digest_catches_one_weight(materialise: Callable[..., Materials], position: int) -> None:
    workload = Feature("eval").prepare(materialise())
    frozen = workload.frozen_sha256()
    parameters = list(workload.deployables[0].backbone.parameters())
    with torch.no_grad():
        parameters[position].view(-1)[-1] += 1e-3
    assert workload.frozen_sha256() != frozen


def test_statistics_that_may_drift_do_and_are_named_as_trained(
    materialise: Callable[..., Materials], statistics: Statistics, train: Callable[..., None], moved: Moved
) -> None:
    workload = Feature("train").prepare(materialise())
    frozen = workload.frozen_sha256()
    assert moved(workload, lambda: train(workload)) == workload.trained == HEAD | statistics(workload)
    assert workload.frozen_sha256() == frozen, "weights stay"


@pytest.mark.parametrize(
    ("batchnorm", "changes", "reason"),
    [("eval", {"augmentation": RANDOM}, "augmentation is random"), ("train", {}, "strategy.batchnorm=train")],
)
def test_a_backbone_that_must_run_in_every_epoch_says_why(
    materialise: Callable[..., Materials], notes: Any, batchnorm: Any, changes: dict[str, Any], reason: str
) -> None:
    (phase,) = Feature(batchnorm).prepare(materialise(**changes)).phases
    (notice,) = notes.notices
    assert "the frozen backbone runs in every epoch" in notice
    assert reason in notice
    assert notes.titles == []
    assert all(isinstance(batches, ImageBatches) for batches in (phase.train, phase.val, phase.test))
    first, second = (next(phase.train.epoch(epoch)).inputs for epoch in (1, 2))
    assert not torch.equal(first, second)


def test_constant_images_are_seen_by_the_backbone_once(materialise: Callable[..., Materials], notes: Any) -> None:
    materials = materialise()
    passes: list[int] = []
    materials.backbone.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    (phase,) = Feature("eval").prepare(materials).phases
    assert notes.notices == []
    assert notes.titles == [
        "extracting features of 20 train images",
        "extracting features of 10 val images",
        "extracting features of 10 test images",
    ]
    assert all(isinstance(batches, FeatureBatches) for batches in (phase.train, phase.val, phase.test))
    assert [batches.num_samples for batches in (phase.train, phase.val, phase.test)] == [20, 10, 10]
    for epoch in range(3):
        for batch in phase.train.epoch(epoch):
            phase.module(batch.inputs)
    assert len(passes) == 3 + 2 + 2  # 20, 10 and 10 images, 8 at once


@torch.no_grad()
def test_features_give_the_logits_that_images_give(materialise: Callable[..., Materials]) -> None:
    materials = materialise()
    workload = Feature("eval").prepare(materials)
    (phase,) = workload.phases
    behind = FrozenBackbone(materials.backbone, phase.module).eval()
    batches = materials.image_batches(materials.images.test)
    for cached, images in zip(phase.test.epoch(1), batches.epoch(1), strict=True):
        logits = phase.module(cached.inputs)
        assert torch.equal(cached.labels, images.labels)
        torch.testing.assert_close(logits, behind(images.inputs), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[0], workload.deployables[0](images.inputs), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_training_on_features_is_training_on_images(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    materials = materialise(epochs=3)
    (cached, on_images) = (
        Feature("eval").prepare(replace(materials, augmentation=augmentation))
        for augmentation in (materials.augmentation, HARMLESS)
    )
    assert isinstance(on_images.phases[0].train, ImageBatches)
    assert torch.equal(cached.deployables[0].head.weight, on_images.deployables[0].head.weight)
    begin = cached.deployables[0].head.weight.clone()
    for workload in (cached, on_images):
        with torch.enable_grad():
            train(workload, optimizer=torch.optim.SGD)
    a, b = (workload.deployables[0].head.weight for workload in (cached, on_images))
    assert (a - begin).abs().max() > 1e-3
    assert (a - b).abs().max() < 1e-4
    batch = next(materials.image_batches(materials.images.test).epoch(1))
    logits = [workload.deployables[0].eval()(batch.inputs) for workload in (cached, on_images)]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_no_gradient_reaches_the_backbone(materialise: Callable[..., Materials], batchnorm: Any) -> None:
    materials = materialise(augmentation=RANDOM)
    workload = Feature(batchnorm).prepare(materials)
    (phase,) = workload.phases
    batch = next(phase.train.epoch(1))
    phase.module(batch.inputs).square().sum().backward()
    assert [name for name, parameter in phase.module.named_parameters() if parameter.grad is not None] == [
        "bank.weight",
        "bank.bias",
    ]
    assert not any(parameter.requires_grad for parameter in materials.backbone.parameters())
    trained = [parameter for group in workload.groups for parameter in group.params]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in phase.module.bank.parameters()}
    assert all(group.lr_scale == 1.0 for group in workload.groups)


def test_a_head_begins_as_its_seed_says(materialise: Callable[..., Materials]) -> None:
    workload = Feature("eval").prepare(materialise(seeds=(4,)))
    expected = make_head(feature_dim=1280, num_classes=10, seed=derive_seed(4, "head"))
    assert torch.equal(workload.deployables[0].head.weight, expected.weight)
    assert torch.equal(workload.deployables[0].head.bias, expected.bias)


def test_members_learn_as_they_would_alone(materialise: Callable[..., Materials], train: Callable[..., None]) -> None:
    together = Feature("eval").prepare(materialise(seeds=(0, 3), epochs=2))
    train(together)
    assert together.num_members == 2
    for member, seed in enumerate((0, 3)):
        alone = Feature("eval").prepare(materialise(seeds=(seed,), epochs=2))
        begin = alone.deployables[0].head.weight.clone()
        train(alone)
        expected, own = alone.deployables[0].head.weight, together.deployables[member].head.weight
        assert not torch.equal(own, begin)
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_deployable_has_the_head_that_is_trained(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    workload = Feature("eval").prepare(materialise(seeds=(0, 3)))
    (phase,) = workload.phases
    assert isinstance(phase.module, HeadBank)
    train(workload)
    for member, model in enumerate(workload.deployables):
        assert torch.equal(model.head.weight, phase.module.weight[member])
        assert workload.trained_tensors(member).keys() == HEAD
        assert torch.equal(workload.trained_tensors(member)["head.bias"], phase.module.bias[member])
    assert workload.weights_sha256(0) != workload.weights_sha256(1)
