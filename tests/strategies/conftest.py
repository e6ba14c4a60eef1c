"""Real components, small: a network of five stages at 32 pixels and a few digits."""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.watching import Notes
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.digits import digits
from tl_experiments.data.mixing import NO_MIXING
from tl_experiments.data.sampling import shuffled
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Normalise, centre_crop, make_canvas
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.schedulers import constant
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import Linear
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.precision import Compute, Precision
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials

Materialise = Callable[..., Materials]
Train = Callable[..., None]
NO_AUGMENTATION = Augmentation(hflip_prob=0.0, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="session")
def images() -> DatasetImages:
    dataset = digits(train_size=20, val_fraction=0.1, split_seed=0, image_size=32, crop_pct=1.0)
    val, test = (Split(split.name, split.source, split.indices[:10]) for split in (dataset.val, dataset.test))
    return load_dataset_images(
        replace(dataset, val=val, test=test),
        canvas=make_canvas(size=32, crop_pct=1.0, interpolation="bilinear"),
        workers=0,
        memory_bytes=10**9,
        store=None,
        checks=None,
        watch=Notes(),
    )


@pytest.fixture(scope="session")
def pretrained(images: DatasetImages) -> Backbone:
    """Not to be changed. Its statistics are those of digits; with those of a new network it would say nothing."""
    backbone = timm_backbone(name="test_efficientnet", weights=None, image_size=32, preferred_size=None, seed=0)
    [canvases] = images.train.batches([np.arange(len(images.train))])
    normalise = Normalise(backbone.input_spec.mean, backbone.input_spec.std)
    backbone.train()
    with torch.no_grad():
        for _ in range(50):
            backbone(normalise(centre_crop(canvases, 32)))
    return backbone


@pytest.fixture
def materialise(pretrained: Backbone, images: DatasetImages, notes: Notes) -> Materialise:
    """Materials with a backbone of their own."""

    def make(**changes: Any) -> Materials:
        precision = Precision("fp32", "cpu")
        defaults: dict[str, Any] = {
            "backbone": copy.deepcopy(pretrained),
            "num_classes": 10,
            "images": images,
            "augmentation": NO_AUGMENTATION,
            "mixing": NO_MIXING,
            "sampler": shuffled,
            "head": Linear(dropout=0.0),
            "batch_size": 8,
            "epochs": 1,
            "seeds": (0,),
            "compute": Compute(torch.device("cpu"), precision, precision, "contiguous", infer_batch_size=8),
            "cache": False,
            "memory_bytes": 10**9,
            "watch": notes,
        }
        return Materials(**(defaults | changes))

    return make


@pytest.fixture
def train() -> Train:
    """Trains a workload to its end."""

    def train(workload: Workload, *, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW) -> None:
        trainer = Trainer(
            workload,
            updates=make_updates(
                workload.groups,
                optimizers=[functools.partial(optimizer, lr=1e-3)] * workload.num_members,
                schedulers=[constant] * workload.num_members,
                fused=False,
            ),
            device=torch.device("cpu"),
            options=TrainingOptions(seed=0, log_every_steps=100),
        )
        for _ in trainer.fit():
            pass

    return train


@pytest.fixture
def moved() -> Callable[[Workload, Callable[[], object]], set[str]]:
    """Names of the tensors of the first deployable that an action changes."""

    def moved(workload: Workload, action: Callable[[], object]) -> set[str]:
        model = workload.deployables[0]
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        action()
        return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}

    return moved


@pytest.fixture
def statistics() -> Callable[[Workload], set[str]]:
    """Names of the buffers of BatchNorm."""

    def statistics(workload: Workload) -> set[str]:
        names = workload.deployables[0].state_dict()
        return {name for name in names if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}

    return statistics
