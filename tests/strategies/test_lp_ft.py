"""LP-FT probes on features, then fine-tunes all layers from that head, each under a schedule of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.engine.training_plan import make_training_plan
from tl_experiments.strategies.lp_ft import LpFt
from tl_experiments.strategies.materials import Materials

MIRROR = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)


def lp_ft(**changes: Any) -> LpFt:
    settings = {"probe_epochs": 2, "probe_lr_scale": 3.0, "batchnorm": "train", "backbone_lr_scale": 0.1}
    return LpFt(**(settings | {"layer_decay": 1.0, "l2_sp": 0.0} | changes))


def test_the_probe_is_on_features_and_the_rest_on_images(materialise: Callable[..., Materials]) -> None:
    probe, finetune = lp_ft().prepare(materialise(epochs=3)).phases
    assert isinstance(probe.open().train, FeatureBatches)
    assert isinstance(finetune.open().train, ImageBatches)
    assert (probe.epochs, finetune.epochs) == (2, 3)
    assert len(probe.open().train) == len(finetune.open().train)
    assert not finetune.continues


def test_fine_tuning_begins_with_the_head_that_was_probed(
    materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    """A probe alone, and the same inside: after it the backbone is as pretrained and the head the same."""
    workload = lp_ft().prepare(materialise())
    start = {name: tensor.clone() for name, tensor in workload.deployables[0].state_dict().items()}
    train(replace(workload, phases=workload.phases[:1]))
    moved = {name for name, t in workload.deployables[0].state_dict().items() if not torch.equal(t, start[name])}
    assert moved == {"head.weight", "head.bias"}
    train(replace(workload, phases=workload.phases[1:]))
    moved = {name for name, t in workload.deployables[0].state_dict().items() if not torch.equal(t, start[name])}
    assert moved == set(start)


def test_the_plan_says_what_each_phase_is(materialise: Callable[..., Materials]) -> None:
    plan = make_training_plan(lp_ft().prepare(materialise(epochs=3)), lrs=[0.01])
    probe, finetune = plan.phases
    assert (probe.part_names, probe.num_params, probe.batchnorm) == (("head",), 2570, "eval")
    assert (finetune.part_names, finetune.num_params) == (("backbone", "head"), plan.num_params)
    assert finetune.batchnorm == "train"
    assert plan.peaks(probe) == (0.03, 0.03)
    assert plan.peaks(finetune) == (0.001, 0.01)


def test_under_random_augmentation_the_probe_sees_new_images_too(
    materialise: Callable[..., Materials], notes: Any
) -> None:
    probe, _ = lp_ft().prepare(materialise(augmentation=MIRROR)).phases
    assert isinstance(probe.open().train, ImageBatches)
    assert notes.notices == ["probe: the frozen backbone runs in every epoch, because augmentation is random"]
