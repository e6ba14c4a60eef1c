"""Under partial fine-tuning the last stages learn, and the first ones are asked once what they say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.watching import Notes
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.precision import Precision
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.partial import Partial

Materialise = Callable[..., Materials]
Train = Callable[..., None]
Moved = Callable[[Workload, Callable[[], object]], set[str]]
Statistics = Callable[[Workload], set[str]]
FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3")
MIRROR = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
UNCACHED = {"memory_bytes": 0}


def last_stages(num_stages: int, batchnorm: Any, backbone_lr_scale: float) -> Partial:
    return Partial(
        num_stages=num_stages,
        train=None,
        batchnorm=batchnorm,
        backbone_lr_scale=backbone_lr_scale,
        layer_decay=1.0,
        l2_sp=0.0,
    )


@pytest.mark.parametrize("changes", [{}, UNCACHED], ids=["kept", "every epoch"])
@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_the_last_stage_moves_and_nothing_else(
    batchnorm: Any, changes: dict, materialise: Materialise, train: Train, moved: Moved, statistics: Statistics
) -> None:
    workload = last_stages(1, batchnorm, 1.0).prepare(materialise(epochs=2, **changes))
    frozen = workload.frozen_sha256()
    changed = moved(workload, lambda: train(workload))
    assert changed == workload.trained
    assert {name.removeprefix("backbone.body.") for name in changed} >= {
        "blocks.4.0.conv_pw.weight",
        "conv_head.weight",
    }
    assert not [name for name in changed if name.removeprefix("backbone.body.").startswith(FROZEN)]
    assert bool(changed & statistics(workload)) is (batchnorm == "train")
    assert workload.frozen_sha256() == frozen


def test_more_stages_train_more(materialise: Materialise) -> None:
    counts = [last_stages(stages, "train", 1.0).prepare(materialise()).num_trained_params(0) for stages in (1, 2, 3, 4)]
    assert counts == sorted(set(counts))
    with pytest.raises(SettingError, match="test_efficientnet has 5 stages; expected 1 to 4"):
        last_stages(5, "train", 1.0).prepare(materialise())


def test_what_is_frozen_is_computed_once(materialise: Materialise, notes: Notes, train: Train) -> None:
    materials = materialise(epochs=3)
    [phase] = (workload := last_stages(1, "train", 1.0).prepare(materials)).phases
    calls: list[int] = []
    materials.backbone.body.conv_stem.register_forward_hook(lambda *_: calls.append(1))
    batches = phase.open()
    assert all(isinstance(split, FeatureBatches) for split in (batches.train, *batches.at_the_end()))
    once = len(calls)
    train(replace(workload, phases=(replace(phase, open=lambda: batches),)))
    assert len(calls) == once
    assert sorted(title for title in notes.titles if "activations" in title) == [
        "extracting activations of 10 test images",
        "extracting activations of 10 val images",
        "extracting activations of 20 train images",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augmentation": MIRROR}, "because augmentation is random"),
        (UNCACHED, "because their activations take 0.0 GB (runtime.image_memory_gb=0)"),
    ],
    ids=["augmentation", "memory"],
)
def test_what_cannot_be_kept_is_computed_in_every_epoch_and_told(
    changes: dict, reason: str, materialise: Materialise, notes: Notes
) -> None:
    [phase] = last_stages(1, "train", 1.0).prepare(materialise(**changes)).phases
    batches = phase.open()
    assert isinstance(batches.train, ImageBatches)
    assert [note for note in notes.notices if "frozen stages" in note] == [
        f"partial: the frozen stages run in every epoch, {reason}"
    ]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_keeping_them_does_not_change_what_is_learned(layout: str, materialise: Materialise, train: Train) -> None:
    def learned(**changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
        materials = materialise(epochs=2, **changes)
        materials = replace(materials, compute=replace(materials.compute, layout=layout))
        materials.backbone.to(memory_format=materials.compute.memory_format)  # type: ignore[call-overload]
        workload = last_stages(1, "eval", 1.0).prepare(materials)
        train(workload, optimizer=torch.optim.SGD)
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        model = workload.deployables[0].eval()
        with torch.no_grad():
            return model(images), model.head.weight.clone()

    for kept, again in zip(learned(), learned(**UNCACHED), strict=True):
        torch.testing.assert_close(kept, again, rtol=1e-3, atol=1e-3)


def test_what_is_kept_is_what_each_epoch_would_compute(materialise: Materialise) -> None:
    """Training images in the precision of training, the others in that of evaluation."""
    materials = materialise()
    materials = replace(materials, compute=replace(materials.compute, infer=Precision("bf16", "cpu")))
    [phase] = last_stages(1, "eval", 1.0).prepare(materials).phases
    batches = phase.open()
    assert next(batches.train.epoch(1)).inputs.dtype == torch.float32
    assert {next(split.epoch(1)).inputs.dtype for split in (batches.val, *batches.at_the_end())} == {torch.bfloat16}


def test_the_phase_and_the_deployable_say_the_same(materialise: Materialise) -> None:
    materials = materialise()
    workload = last_stages(2, "eval", 1.0).prepare(materials)
    [phase] = workload.phases
    batches = phase.open()
    from_activations = torch.cat([phase.module.eval()(batch.inputs)[0] for batch in batches.at_the_end()[1].epoch(0)])
    images = materials.image_batches(materials.images.test)
    model = workload.deployables[0].eval()
    from_images = torch.cat([model(batch.inputs) for batch in images.epoch(0)])
    torch.testing.assert_close(from_activations, from_images, rtol=1e-3, atol=1e-3)


def test_the_head_begins_as_under_the_other_strategies_and_the_rates_are_scaled(materialise: Materialise) -> None:
    workload = last_stages(1, "train", 0.1).prepare(materialise(seeds=(4,)))
    expected = linear_head(feature_dim=256, num_classes=10, seed=derive_seed(4, "head"))
    assert torch.equal(workload.deployables[0].head.weight, expected.weight)
    assert {group.name: group.lr_scale for group in workload.groups} == {
        "backbone/decay": 0.1,
        "backbone/no_decay": 0.1,
        "head/decay": 1.0,
        "head/no_decay": 1.0,
    }
    assert sum(parameter.numel() for group in workload.groups for parameter in group.params) == (
        workload.num_trained_params(0)
    )
