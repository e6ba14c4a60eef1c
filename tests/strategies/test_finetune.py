"""Under fine-tuning every layer learns, at the rate that its part is given."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tl_experiments.data.batches import ImageBatches
from tl_experiments.engine.optimizers import make_optimizer
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.finetune import Finetune
from tl_experiments.strategies.materials import Materials

Statistics = Callable[[Workload], set[str]]
Moved = Callable[[Workload, Callable[[], object]], set[str]]


def finetune(batchnorm: Any, backbone_lr_scale: float) -> Finetune:
    return Finetune(batchnorm=batchnorm, backbone_lr_scale=backbone_lr_scale, layer_decay=1.0, l2_sp=0.0)


def test_everything_moves_and_is_named_as_trained(
    materialise: Callable[..., Materials], train: Callable[..., None], moved: Moved
) -> None:
    workload = finetune("train", 1.0).prepare(materialise(epochs=2))
    assert moved(workload, lambda: train(workload)) == workload.trained == set(workload.deployables[0].state_dict())


def test_statistics_that_are_kept_stay_while_weights_move(
    materialise: Callable[..., Materials], statistics: Statistics, train: Callable[..., None], moved: Moved
) -> None:
    workload = finetune("eval", 1.0).prepare(materialise(epochs=2))
    frozen = workload.frozen_sha256()
    every = set(workload.deployables[0].state_dict())
    assert moved(workload, lambda: train(workload)) == workload.trained == every - statistics(workload)
    assert len(statistics(workload)) > 30
    assert workload.frozen_sha256() == frozen


def test_norms_that_also_activate_keep_their_statistics_too(
    materialise: Callable[..., Materials], statistics: Statistics, train: Callable[..., None], moved: Moved
) -> None:
    """Layers of timm that are a BatchNorm and an activation in one."""
    backbone = timm_backbone(name="test_efficientnet", weights=None, image_size=32, preferred_size=None, seed=0)
    workload = finetune("eval", 1.0).prepare(materialise(backbone=backbone))
    assert statistics(workload)
    assert not moved(workload, lambda: train(workload)) & statistics(workload)
    assert not workload.trained & statistics(workload)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_a_frozen_backbone_is_thawed(
    materialise: Callable[..., Materials], train: Callable[..., None], batchnorm: Any
) -> None:
    materials = materialise()
    materials.backbone.requires_grad_(False)
    workload = finetune(batchnorm, 1.0).prepare(materials)
    own = dict(workload.deployables[0].named_parameters())
    train(workload)
    assert all(parameter.requires_grad for parameter in own.values())
    assert sorted(name for group in workload.groups for name in group.param_names) == sorted(own)


def test_the_scale_of_the_backbones_rate_reaches_the_optimizer(materialise: Callable[..., Materials]) -> None:
    workload = finetune("train", 0.1).prepare(materialise())
    assert {group.name: group.lr_scale for group in workload.groups} == {
        "backbone/decay": 0.1,
        "backbone/no_decay": 0.1,
        "head/decay": 1.0,
        "head/no_decay": 1.0,
    }
    optimizer = make_optimizer(
        lambda groups: torch.optim.AdamW(groups, lr=0.5, weight_decay=0.2), workload.groups, fused=True
    )
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "backbone/decay": (pytest.approx(0.05), 0.2),
        "backbone/no_decay": (pytest.approx(0.05), 0.0),
        "head/decay": (0.5, 0.2),
        "head/no_decay": (0.5, 0.0),
    }


def test_a_smaller_scale_moves_the_backbone_less(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    def distance(scale: float) -> tuple[float, float]:
        workload = finetune("eval", scale).prepare(materialise(batch_size=20))
        model = workload.deployables[0]
        weights = [weight.detach() for weight in (next(model.backbone.parameters()), model.head.weight)]
        before = [weight.clone() for weight in weights]
        train(workload, optimizer=torch.optim.SGD)
        backbone, head = (float((weight - old).norm()) for weight, old in zip(weights, before, strict=True))
        return backbone, head

    (backbone, head), (scaled, same) = distance(1.0), distance(0.1)
    assert scaled == pytest.approx(0.1 * backbone, rel=0.02)
    assert same == pytest.approx(head)


def test_a_phase_sees_images_and_yields_logits_with_a_member_axis(materialise: Callable[..., Materials]) -> None:
    workload = finetune("train", 1.0).prepare(materialise(epochs=3))
    (phase,) = workload.phases
    assert (phase.name, phase.epochs, workload.num_members) == ("finetune", 3, 1)
    batches = phase.open()
    assert all(isinstance(split, ImageBatches) for split in (batches.train, *batches.at_the_end()))
    batch = next(batches.val.epoch(1))
    logits = phase.module.eval()(batch.inputs)
    assert logits.shape == (1, 8, 10)
    assert torch.equal(logits[0], workload.deployables[0](batch.inputs))


def test_the_head_begins_as_under_feature_extraction(materialise: Callable[..., Materials]) -> None:
    tuned = finetune("train", 1.0).prepare(materialise(seeds=(4,))).deployables[0]
    probed = Feature("eval", None).prepare(materialise(seeds=(4,))).deployables[0]
    expected = linear_head(feature_dim=256, num_classes=10, seed=derive_seed(4, "head"))
    assert torch.equal(tuned.head.weight, expected.weight)
    assert torch.equal(tuned.head.weight, probed.head.weight)
    assert tuned.backbone.body.conv_stem.weight.equal(probed.backbone.body.conv_stem.weight)


def test_training_is_a_function_of_the_seed(materialise: Callable[..., Materials], train: Callable[..., None]) -> None:
    digests = []
    for seed in (0, 0, 1):
        workload = finetune("train", 1.0).prepare(materialise(seeds=(seed,)))
        train(workload)
        digests.append(workload.weights_sha256(0))
    assert digests[0] == digests[1] != digests[2]
