"""Under gradual unfreezing stages thaw from the last, on time; what has not thawed stands still and is asked once."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.watching import Notes
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord
from tl_experiments.engine.schedulers import constant
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.training_plan import make_training_plan
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.gradual import Gradual
from tl_experiments.strategies.materials import Materials

Materialise = Callable[..., Materials]
HEAD = {"head.weight", "head.bias"}
THAWS = (  # with the last stage goes what follows it, and with the first what comes before it
    ("blocks.4", "conv_head", "bn2"),
    ("blocks.3",),
    ("blocks.2",),
    ("blocks.1",),
    ("conv_stem", "bn1", "blocks.0"),
)


def gradual(every_epochs: int = 1, batchnorm: Any = "train") -> Gradual:
    return Gradual(every_epochs=every_epochs, batchnorm=batchnorm, backbone_lr_scale=1.0, layer_decay=1.0, l2_sp=0.0)


def test_stages_thaw_from_the_last_when_their_time_comes(materialise: Materialise, notes: Notes) -> None:
    """The real run, looked at after every epoch: what of the network has changed in it."""
    materials = materialise(epochs=11)
    workload = gradual(2).prepare(materials)
    model, calls = workload.deployables[0], []
    materials.backbone.body.conv_stem.register_forward_hook(lambda *_: calls.append(1))
    trainer = Trainer(
        workload,
        updates=make_updates(
            workload.groups, optimizers=[lambda groups: torch.optim.SGD(groups, lr=0.1)], schedulers=[constant],
            fused=False,
        ),
        device=torch.device("cpu"), options=TrainingOptions(seed=0, log_every_steps=100),
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved, passes = [], []
    for record in trainer.fit():
        if isinstance(record, EpochRecord):
            moved.append({name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])})
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            passes.append(len(calls))
    for epoch, changed in enumerate(moved):
        thawed = [f"backbone.body.{layer}." for layers in THAWS[: epoch // 2] for layer in layers]
        assert changed - HEAD <= {name for name in before if name.startswith(tuple(thawed))}, f"epoch {epoch + 1}"
        for layer in thawed:
            own = [name for name in before if name.startswith(layer)]
            assert len(changed.intersection(own)) > 0.9 * len(own), f"{layer} in epoch {epoch + 1}"
    asked = [after - first for first, after in pairwise([0, *passes])]
    assert asked[:10:2] == [asked[0]] * 5, "each phase asks once what the frozen stages say"
    assert asked[1:10:2] == [0] * 5, "and in no later epoch"
    assert len([title for title in notes.titles if "activations of 20 train images" in title]) == 4


@pytest.mark.parametrize(
    ("every_epochs", "epochs", "ends"),
    [(1, 1, [1]), (2, 3, [2, 3]), (1, 9, [1, 2, 3, 4, 5, 9]), (3, 20, [3, 6, 9, 12, 15, 20])],
)
def test_epochs_add_up_and_those_that_are_left_train_all(
    every_epochs: int, epochs: int, ends: list[int], materialise: Materialise
) -> None:
    workload = gradual(every_epochs).prepare(materialise(epochs=epochs))
    assert [phase.last_epoch for phase in make_training_plan(workload, lrs=[1e-3]).phases] == ends
    assert [phase.continues for phase in workload.phases] == [False] + [True] * (len(ends) - 1)
    grows = [len(phase.trained) for phase in workload.phases]
    assert grows == sorted({*grows})
    in_groups = {name for group in workload.groups for name in group.param_names}
    assert in_groups == workload.phases[-1].trained, "what never thaws is in no group"


@pytest.mark.parametrize(
    ("epochs", "told"), [(5, ["gradual: 1 of 5 stages never thaw; expected epochs above 5 for all"]), (6, [])]
)
def test_stages_that_never_thaw_are_told(epochs: int, told: list[str], materialise: Materialise, notes: Notes) -> None:
    gradual().prepare(materialise(epochs=epochs))
    assert [notice for notice in notes.notices if "thaw" in notice] == told


def test_batchnorm_of_what_is_frozen_stands_still(materialise: Materialise) -> None:
    modes = [
        phase.batchnorm for phase in make_training_plan(gradual().prepare(materialise(epochs=6)), lrs=[1e-3]).phases
    ]
    assert modes == ["eval", "mixed", "mixed", "mixed", "mixed", "train"]
    kept = make_training_plan(gradual(batchnorm="eval").prepare(materialise(epochs=6)), lrs=[1e-3])
    assert {phase.batchnorm for phase in kept.phases} == {"eval"}


def test_without_stages_nothing_could_thaw(materialise: Materialise) -> None:
    backbone = timm_backbone(name="test_efficientnet", weights=None, image_size=32, preferred_size=None, seed=0)
    backbone.stages = ()
    with pytest.raises(SettingError, match=r"^strategy=gradual: test_efficientnet does not say what its stages are"):
        gradual().check(lambda: backbone)
    with pytest.raises(SettingError, match=r"^strategy=gradual"):
        gradual().prepare(materialise(backbone=backbone))
