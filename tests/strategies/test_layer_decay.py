"""Under every schedule the rate of every parameter is, step by step, the closed form times its stage's scale."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer

from tests.models.test_param_groups import make_model
from tl_experiments.engine import schedulers
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import param_groups
from tl_experiments.models.stages import stage_numbers
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.finetune import Finetune

PEAK, BACKBONE, DECAY = 0.3, 0.5, 0.65
EPOCHS, STEPS = 7, 4
TOTAL = EPOCHS * STEPS
BACKBONES = (
    *("efficientnet_lite0", "resnet18", "vgg16", "inception_v3", "mobilenet_v3_large", "vit_b_16"),
    *("test_convnext", "test_vit4", "test_efficientnet_gn"),
)


def cosine(step: int) -> float:
    warmup = round(1.5 * STEPS)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (TOTAL - warmup)))


def one_cycle(step: int) -> float:
    rise, fall = 0.3 * (TOTAL + 1) - 1, TOTAL  # the steps of the peak and of the end
    first, last = 1 / 25, 1 / 25 / 1e3
    if step <= rise:
        return first + (1 - first) * 0.5 * (1 - math.cos(math.pi * step / rise))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - rise) / (fall - rise)))


SCHEDULES: dict[str, tuple[Callable[..., schedulers.Schedule], Callable[[int], float]]] = {
    "cosine": (functools.partial(schedulers.cosine, warmup_epochs=1.5, min_lr_fraction=0.1), cosine),
    "step": (functools.partial(schedulers.step, step_size=2, gamma=0.3), lambda step: 0.3 ** (step // STEPS // 2)),
    "constant": (schedulers.constant, lambda _: 1.0),
    "onecycle": (
        functools.partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e3),
        one_cycle,
    ),
    # The score stands still: the first epoch is the best, and each second one after it lowers the rate.
    "plateau": (
        functools.partial(schedulers.plateau, factor=0.2, patience=1),
        lambda step: 0.2 ** max(0, (step // STEPS - 1) // 2),
    ),
}


def finetune(layer_decay: float) -> Finetune:
    return Finetune(batchnorm="train", backbone_lr_scale=BACKBONE, layer_decay=layer_decay, l2_sp=0.0)


@functools.cache
def model_of(name: str) -> Model:
    return make_model(name)


@functools.cache
def expected_scales(name: str) -> dict[str, float]:
    model = model_of(name)
    last = len(model.backbone.stages)
    stages = stage_numbers(model.backbone)  # compared with cuts of the network in tests/models/test_stages.py
    return {"head.weight": 1.0, "head.bias": 1.0} | {
        f"backbone.{parameter}": BACKBONE * DECAY ** (last - stage) for parameter, stage in stages.items()
    }


def rates(model: Model, make: Any, *, lr_scale: float) -> Iterator[dict[str, float]]:
    """The rate of every parameter at each step, as the real updates have it."""
    made: list[Optimizer] = []  # the first is only asked what it is

    def factory(groups: Any) -> Optimizer:
        made.append(SGD(groups, lr=PEAK))
        return made[-1]

    names = {name for name, _ in model.named_parameters()}
    groups = param_groups(model, finetune(DECAY).parts(model, names), has_member_axis=False)
    updates = make_updates(groups, optimizers=[factory], schedulers=[make], fused=False)
    updates.begin(total_steps=TOTAL, steps_per_epoch=STEPS, lr_scale=lr_scale)
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            yield {
                name: own["lr"]
                for own, group in zip(made[-1].param_groups, groups, strict=True)
                for name in group.param_names
            }
            updates.step(torch.ones(1, dtype=torch.bool))
        updates.after_epoch((0.5,))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_rate_is_the_closed_form(backbone: str, schedule: str) -> None:
    make, factor = SCHEDULES[schedule]
    model, scales = model_of(backbone), expected_scales(backbone)
    assert len({*scales.values()}) > len(model.backbone.stages)
    for step, found in enumerate(rates(model, make, lr_scale=2.0)):
        assert found == pytest.approx({name: 2.0 * PEAK * scale * factor(step) for name, scale in scales.items()}), step


def test_deeper_is_slower_and_what_follows_the_last_stage_is_not_slowed() -> None:
    scales = expected_scales("efficientnet_lite0")
    body = "backbone.body"
    order = ["conv_stem.weight", "blocks.1.0.conv_pw.weight", "blocks.6.0.conv_pw.weight", "conv_head.weight"]
    found = [scales[f"{body}.{name}"] for name in order]
    assert found == sorted(found)
    assert found[0] == BACKBONE * DECAY**5
    assert found[2:] == [BACKBONE * DECAY, BACKBONE]


def test_without_decay_there_is_one_rate_for_the_backbone() -> None:
    model = model_of("resnet18")
    parts = finetune(1.0).parts(model, {name for name, _ in model.named_parameters()})
    assert {(part.name, part.lr_scale) for part in parts.values()} == {("backbone", BACKBONE), ("head", 1.0)}


def test_a_backbone_that_tells_no_stages_has_no_depth() -> None:
    model = make_model("resnet18")
    model.backbone.stages = ()
    with pytest.raises(SettingError, match=r"strategy\.layer_decay=0\.65: resnet18 does not say what its stages are"):
        finetune(DECAY).check(lambda: model.backbone)
    finetune(1.0).check(lambda: pytest.fail("nothing is asked"))
    assert finetune(1.0).parts(model, {"backbone.body.conv1.weight"})
