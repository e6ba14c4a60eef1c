"""Under feature extraction the head learns and nothing of the backbone moves, its running statistics included."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import Batches, ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.heads import HeadBank
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.on_features import FrozenBackbone

HEAD = {"head.weight", "head.bias"}
RANDOM = Augmentation(hflip_prob=0.0, rotation_degrees=15.0, scale=(0.7, 1.0), ratio=(0.9, 1.1), erase_prob=0.0)
# Random in name: no image is ever mirrored, so that it takes the path of images and changes nothing.
HARMLESS = Augmentation(hflip_prob=1e-300, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
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
    workload = Feature("eval", None).prepare(materialise(**({"augmentation": augmentation} if augmentation else {})))
    frozen, whole = workload.frozen_sha256(), workload.weights_sha256(0)
    assert moved(workload, lambda: train(workload)) == HEAD
    assert workload.trained == HEAD
    assert len(statistics(workload)) > 30
    assert workload.frozen_sha256() == frozen
    assert workload.weights_sha256(0) != whole


def test_the_digest_catches_a_drift_that_requires_grad_does_not_stop(materialise: Callable[..., Materials]) -> None:
    materials = materialise()
    workload = Feature("eval", None).prepare(materials)
    batch = next(materials.image_batches(materials.images.train, seed=0).epoch(1))
    frozen = workload.frozen_sha256()
    assert not any(parameter.requires_grad for parameter in materials.backbone.parameters())
    workload.deployables[0].eval()(batch.inputs)
    assert workload.frozen_sha256() == frozen
    workload.deployables[0].train()(batch.inputs)
    assert workload.frozen_sha256() != frozen


@pytest.mark.parametrize("position", [0, -1])
def test_the_digest_catches_one_weight(materialise: Callable[..., Materials], position: int) -> None:
    workload = Feature("eval", None).prepare(materialise())
    frozen = workload.frozen_sha256()
    parameters = list(workload.deployables[0].backbone.parameters())
    with torch.no_grad():
        parameters[position].view(-1)[-1] += 1e-3
    assert workload.frozen_sha256() != frozen


def test_statistics_that_may_drift_do_and_are_named_as_trained(
    materialise: Callable[..., Materials], statistics: Statistics, train: Callable[..., None], moved: Moved
) -> None:
    workload = Feature("train", None).prepare(materialise())
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
    (phase,) = Feature(batchnorm, None).prepare(materialise(**changes)).phases
    (notice,) = notes.notices
    assert "the frozen backbone runs in every epoch" in notice
    assert reason in notice
    assert notes.titles == []
    batches = phase.open()
    assert all(isinstance(split, ImageBatches) for split in (batches.train, batches.val, *batches.at_the_end()))
    first, second = (next(batches.train.epoch(epoch)).inputs for epoch in (1, 2))
    assert not torch.equal(first, second)


def test_constant_images_are_seen_by_the_backbone_once(materialise: Callable[..., Materials], notes: Any) -> None:
    materials = materialise()
    passes: list[int] = []
    materials.backbone.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    (phase,) = Feature("eval", None).prepare(materials).phases
    assert notes.titles == []
    batches = phase.open()
    assert notes.notices == []
    assert sorted(notes.titles) == ["extracting features of 10 val images", "extracting features of 20 train images"]
    splits = (batches.train, *batches.at_the_end())
    assert notes.titles[2:] == ["extracting features of 10 test images"]
    assert all(isinstance(split, FeatureBatches) for split in splits)
    assert [split.num_samples for split in splits] == [20, 10, 10]
    for epoch in range(3):
        for batch in batches.train.epoch(epoch):
            phase.module(batch.inputs)
    assert [count for count in passes if count > 1] == [8] * (3 + 2 + 2)  # 20, 10 and 10 images, the last ones padded


@torch.no_grad()
def test_features_give_the_logits_that_images_give(materialise: Callable[..., Materials]) -> None:
    materials = materialise()
    workload = Feature("eval", None).prepare(materials)
    (phase,) = workload.phases
    behind = FrozenBackbone(materials.backbone, phase.module).eval()
    batches = materials.image_batches(materials.images.test)
    for cached, images in zip(phase.open().at_the_end()[1].epoch(1), batches.epoch(1), strict=True):
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
        Feature("eval", None).prepare(replace(materials, augmentation=augmentation))
        for augmentation in (materials.augmentation, HARMLESS)
    )
    assert isinstance(on_images.phases[0].open().train, ImageBatches)
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
    workload = Feature(batchnorm, None).prepare(materials)
    (phase,) = workload.phases
    batch = next(phase.open().train.epoch(1))
    phase.module(batch.inputs).square().sum().backward()
    assert [name for name, parameter in phase.module.named_parameters() if parameter.grad is not None] == [
        "heads.weight",
        "heads.bias",
    ]
    assert not any(parameter.requires_grad for parameter in materials.backbone.parameters())
    trained = [parameter for group in workload.groups for parameter in group.params]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in phase.module.heads.parameters()}
    assert all(group.lr_scale == 1.0 for group in workload.groups)


def test_a_head_begins_as_its_seed_says(materialise: Callable[..., Materials]) -> None:
    workload = Feature("eval", None).prepare(materialise(seeds=(4,)))
    expected = linear_head(feature_dim=256, num_classes=10, seed=derive_seed(4, "head"))
    assert torch.equal(workload.deployables[0].head.weight, expected.weight)
    assert torch.equal(workload.deployables[0].head.bias, expected.bias)


def test_members_learn_as_they_would_alone(materialise: Callable[..., Materials], train: Callable[..., None]) -> None:
    together = Feature("eval", None).prepare(materialise(seeds=(0, 3), epochs=2))
    train(together)
    assert together.num_members == 2
    for member, seed in enumerate((0, 3)):
        alone = Feature("eval", None).prepare(materialise(seeds=(seed,), epochs=2))
        begin = alone.deployables[0].head.weight.clone()
        train(alone)
        expected, own = alone.deployables[0].head.weight, together.deployables[member].head.weight
        assert not torch.equal(own, begin)
        assert torch.equal(own, expected)
        assert together.weights_sha256(member) == alone.weights_sha256(0)


def test_a_deployable_has_the_head_that_is_trained(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    workload = Feature("eval", None).prepare(materialise(seeds=(0, 3)))
    (phase,) = workload.phases
    assert isinstance(phase.module, HeadBank)
    train(workload)
    for member, model in enumerate(workload.deployables):
        assert torch.equal(model.head.weight, phase.module.weight[member])
        assert workload.trained_tensors(member).keys() == HEAD
        assert torch.equal(workload.trained_tensors(member)["head.bias"], phase.module.bias[member])
    assert workload.weights_sha256(0) != workload.weights_sha256(1)


MIRRORS = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
VIEWS = 3


def features_of(batches: Batches) -> torch.Tensor:
    """What is kept, (V, N, D)."""
    assert isinstance(batches, FeatureBatches)
    return batches.features


def views_of_sample(batches: Batches, epoch: int) -> dict[int, torch.Tensor]:
    """The features that an epoch shows of every training image, by a number that is its own."""
    assert isinstance(batches, FeatureBatches)
    numbered = replace(batches, labels=torch.arange(len(batches.labels)))
    return {
        int(label): features
        for batch in numbered.epoch(epoch)
        for label, features in zip(batch.labels[0], batch.inputs[0], strict=True)
    }


def test_features_of_views_are_kept_and_nothing_runs_in_an_epoch(
    materialise: Callable[..., Materials], notes: Any, train: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, materials = Feature("eval", VIEWS), materialise(augmentation=RANDOM, epochs=2)
    assert strategy.trains_bank(RANDOM)
    assert not Feature("eval", None).trains_bank(RANDOM)
    workload = strategy.prepare(materials)
    (phase,) = workload.phases
    assert notes.titles == []
    batches = phase.open()
    assert notes.notices == []
    extracted = [
        title for title in notes.titles if not title.startswith("decoding")
    ]  # which a test before may have done
    assert {*extracted} == {
        *(f"extracting features of 20 train images, view {number} of 3" for number in (1, 2, 3)),
        "extracting features of 10 val images",
    }
    assert len(extracted) == 4
    assert all(isinstance(split, FeatureBatches) for split in (batches.train, batches.val))
    views = features_of(batches.train)
    assert views.shape == (VIEWS, 20, 256)
    assert not any(torch.equal(views[a], views[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    frozen, begin = workload.frozen_sha256(), workload.weights_sha256(0)
    workload = replace(workload, phases=(replace(phase, open=lambda: batches),))
    monkeypatch.setattr(Backbone, "forward", pytest.fail)
    train(workload)
    assert workload.frozen_sha256() == frozen
    assert workload.weights_sha256(0) != begin


def test_each_epoch_draws_a_view_of_each_image_by_seed_and_epoch(materialise: Callable[..., Materials]) -> None:
    def drawn(seeds: tuple[int, ...], epoch: int) -> list[int]:
        (phase,) = Feature("eval", VIEWS).prepare(materialise(augmentation=RANDOM, seeds=seeds)).phases
        batches = phase.open().train
        shown = views_of_sample(batches, epoch)
        assert sorted(shown) == list(range(20))
        views = features_of(batches)
        return [int(torch.stack([(view[n] == shown[n]).all() for view in views]).nonzero()) for n in range(20)]

    first = drawn((0,), 1)
    assert set(first) == {0, 1, 2}
    assert drawn((0,), 1) == first == drawn((0, 5), 1)
    assert drawn((0,), 2) != first
    assert drawn((5,), 1) != first


def test_two_views_of_what_only_mirrors_are_the_image_and_its_mirror_image(
    materialise: Callable[..., Materials],
) -> None:
    materials = materialise(augmentation=MIRRORS)
    (phase,) = Feature("eval", 2).prepare(materials).phases
    (plain,) = Feature("eval", None).prepare(materialise()).phases
    with torch.no_grad():
        batches = materials.image_batches(materials.images.train).epoch(0)
        mirrored = torch.cat([materials.backbone.eval()(batch.inputs.flip(-1)) for batch in batches])
    first, second = features_of(phase.open().train)
    torch.testing.assert_close(first, features_of(plain.open().train)[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(second, mirrored, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(first, second, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("augmentation", [RANDOM, MIRRORS], ids=["random", "mirrors"])
def test_val_and_test_are_never_augmented(materialise: Callable[..., Materials], augmentation: Augmentation) -> None:
    (plain,) = Feature("eval", None).prepare(materialise()).phases
    (views,) = Feature("eval", 2).prepare(materialise(augmentation=augmentation)).phases
    with_views, without = views.open(), plain.open()
    assert torch.equal(features_of(with_views.val), features_of(without.val))
    assert torch.equal(features_of(with_views.at_the_end()[1]), features_of(without.at_the_end()[1]))
    assert len(features_of(with_views.train)) == 2


def test_without_augmentation_there_is_one_view(materialise: Callable[..., Materials], notes: Any) -> None:
    (phase,) = Feature("eval", VIEWS).prepare(materialise()).phases
    (plain,) = Feature("eval", None).prepare(materialise()).phases
    assert torch.equal(features_of(phase.open().train), features_of(plain.open().train))
    assert "extracting features of 20 train images" in notes.titles


def test_statistics_that_drift_leave_no_views_to_keep(materialise: Callable[..., Materials], notes: Any) -> None:
    (phase,) = Feature("train", 2).prepare(materialise(augmentation=RANDOM)).phases
    assert isinstance(phase.open().train, ImageBatches)
    assert "strategy.batchnorm=train" in notes.notices[0]


def test_members_learn_from_views_as_they_would_alone(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    def trained(*seeds: int) -> Workload:
        workload = Feature("eval", 2).prepare(materialise(augmentation=RANDOM, seeds=seeds, epochs=2))
        train(workload)
        return workload

    together = trained(0, 3)
    assert [together.weights_sha256(member) for member in range(2)] == [
        trained(seed).weights_sha256(0) for seed in (0, 3)
    ]


def test_kept_features_are_those_that_are_computed(
    materialise: Callable[..., Materials], notes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path))
    opened = []
    for cache in (True, True, False):
        batches = Feature("eval", 2).prepare(materialise(augmentation=RANDOM, cache=cache)).phases[0].open()
        opened.append((batches.train, *batches.at_the_end()))
    extracted = [title for title in notes.titles if title.startswith("extracting")]
    assert len(extracted) == 4 + 0 + 4, "the second run finds all of them"
    for split in zip(*opened, strict=True):
        kept, found, computed = map(features_of, split)
        assert torch.equal(kept, computed)
        assert torch.equal(found, computed)
