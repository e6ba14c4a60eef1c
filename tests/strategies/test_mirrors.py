"""With tta=flip the best weights see each image and its mirror image, however a strategy gets its inputs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.transforms import centre_crop
from tl_experiments.engine.calibration import fit_temperature
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import FinalRecord
from tl_experiments.engine.schedulers import constant
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.features.activations import activations_bytes
from tl_experiments.models.stages import cut
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.finetune import Finetune
from tl_experiments.strategies.lp_ft import LpFt
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.partial import Partial

Materialise = Callable[..., Materials]
RANDOM = {
    "augmentation": Augmentation(
        hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0
    )
}
TRAINS: Mapping[str, Any] = {"batchnorm": "eval", "backbone_lr_scale": 1.0, "layer_decay": 1.0, "l2_sp": 0.0}
PARTIAL = Partial(num_stages=1, train=None, **TRAINS)
CASES = {
    "features": (Feature(batchnorm="eval", views=None), {}),
    "frozen, on images": (Feature(batchnorm="eval", views=None), RANDOM),
    "activations": (PARTIAL, {}),
    "last stages, on images": (PARTIAL, {"memory_bytes": 0}),
    "images": (Finetune(**TRAINS), {}),
    "two phases": (LpFt(probe_epochs=1, probe_lr_scale=1.0, **TRAINS), {}),
}


def final_of(workload: Workload) -> FinalRecord:
    trainer = Trainer(
        workload,
        updates=make_updates(
            workload.groups,
            optimizers=[functools.partial(torch.optim.SGD, lr=1e-3)] * workload.num_members,
            schedulers=[constant] * workload.num_members,
            fused=False,
        ),
        device=torch.device("cpu"),
        options=TrainingOptions(seed=0, log_every_steps=100),
    )
    list(trainer.fit())
    [final] = [record for record in trainer.test() if isinstance(record, FinalRecord)]
    return final


@pytest.mark.parametrize(("strategy", "changes"), CASES.values(), ids=CASES.keys())
def test_the_mean_of_both_decides_and_is_calibrated(
    strategy: Strategy, changes: dict, materialise: Materialise, images: DatasetImages
) -> None:
    materials = materialise(mirrors=True, **changes)
    workload = strategy.prepare(materials)
    final = final_of(workload)
    model = workload.deployables[0].eval()

    def asked(split: str) -> torch.Tensor:
        [canvases] = getattr(images, split).batches([np.arange(10)])
        crops = centre_crop(canvases, 32)
        with torch.inference_mode():
            plain, mirrored = (model(materials.normalise(views)).softmax(dim=1) for views in (crops, crops.flip(-1)))
        assert (plain - mirrored).abs().max() > 1e-3
        return ((plain + mirrored) / 2).log()

    torch.testing.assert_close(final.logits[0], asked("test"), rtol=1e-3, atol=1e-3)
    temperature = fit_temperature(asked("val"), images.val.labels)
    assert final.scores[0].temperature == pytest.approx(temperature, rel=1e-3)


def test_members_of_a_bank_see_them_as_each_alone_does(materialise: Materialise) -> None:
    bank, alone = (
        final_of(Feature(batchnorm="eval", views=None).prepare(materialise(mirrors=True, seeds=seeds)))
        for seeds in ((0, 1, 2), (1,))
    )
    assert torch.equal(bank.logits[1], alone.logits[0])
    assert bank.metrics(1) == alone.metrics(0)


def test_mirror_images_need_room_for_their_activations(materialise: Materialise, images: DatasetImages) -> None:
    materials = materialise()
    prefix = cut(materials.backbone, num_trained=1).prefix
    splits = [images.train, images.val, images.test]
    enough = activations_bytes(prefix, splits, size=32, compute=materials.compute)
    kept, too_many = (
        PARTIAL.prepare(materialise(memory_bytes=enough, mirrors=mirrors)).phases[0].open() for mirrors in (False, True)
    )
    assert isinstance(kept.train, FeatureBatches)
    assert isinstance(too_many.train, ImageBatches)
