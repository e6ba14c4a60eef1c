"""L2-SP is the penalty that its paper writes into the loss: half the strength times the squared way from the start."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.strategies.finetune import Finetune
from tl_experiments.strategies.materials import Materials

LR, DECAY = 0.05, 0.1


def workload_of(materials: Materials, l2_sp: float) -> Any:
    strategy = Finetune(batchnorm="eval", backbone_lr_scale=1.0, layer_decay=1.0, l2_sp=l2_sp)
    return strategy.prepare(materials)


def by_hand(materials: Materials, l2_sp: float) -> torch.nn.Module:
    """The same training, written down: a loss with the penalty in it, and autograd."""
    workload = workload_of(materials, 0.0)
    model, [phase] = workload.deployables[0].requires_grad_(True).eval(), workload.phases
    start = copy.deepcopy(model.backbone).requires_grad_(False)
    optimizer = torch.optim.SGD(
        [
            {"params": [*model.backbone.parameters(), model.head.bias]},
            {"params": [model.head.weight], "weight_decay": DECAY},
        ],
        lr=LR,
    )
    batches = phase.open().train
    for epoch in (1, 2):
        for batch in batches.epoch(epoch):
            pairs = zip(model.backbone.parameters(), start.parameters(), strict=True)
            penalty = sum((weight - origin).square().sum() for weight, origin in pairs)
            loss = cross_entropy(model(batch.inputs), batch.labels[0]) + 0.5 * l2_sp * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("l2_sp", [0.5, 5.0])
def test_it_is_the_penalty_in_the_loss(
    l2_sp: float, materialise: Callable[..., Materials], train: Callable[..., None]
) -> None:
    def materials() -> Materials:
        backbone = timm_backbone(name="test_efficientnet", weights=None, image_size=32, preferred_size=None, seed=0)
        return materialise(backbone=backbone, epochs=2)

    expected = by_hand(materials(), l2_sp)
    workload = workload_of(materials(), l2_sp)
    train(workload, optimizer=lambda groups, lr: torch.optim.SGD(groups, lr=LR, weight_decay=DECAY))  # noqa: ARG005
    start = workload_of(materials(), l2_sp).deployables[0].state_dict()
    free = by_hand(materials(), 0.0).state_dict()
    ways = {}
    for name, tensor in workload.deployables[0].state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)
        if name.startswith("backbone") and tensor.is_floating_point():
            ways[name] = float((tensor - start[name]).norm()), float((free[name] - start[name]).norm())
    assert sum(pulled for pulled, _ in ways.values()) < 0.99 * sum(unpulled for _, unpulled in ways.values())
