"""A head of any kind can be traced for batches of any size."""

import io
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from torch import nn

from tests.inference.test_saved_model import HEADS
from tl_experiments.inference.export_graph import Graph, trace
from tl_experiments.models.neighbours import NeighboursHead

DIM, CLASSES = 6, 3


def made(head: dict[str, Any]) -> nn.Module:
    values = {key: value for key, value in head.items() if key != "_target_"}
    module = get_class(head["_target_"])(**values).make(feature_dim=DIM, num_classes=CLASSES, seed=1).eval()
    if isinstance(module, NeighboursHead):
        generator = torch.Generator().manual_seed(0)
        module.remember(torch.randn(9, DIM, generator=generator), torch.arange(9) % CLASSES)
        module.k.fill_(2)
    return module


class Features(nn.Module):
    """Takes images that are features, as the graph's network is called by `images`."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_traced_for_any_batch(name: str) -> None:
    head = made(HEADS[name])
    program = trace(Graph(Features(head).eval(), torch.zeros(2, DIM), {0: "batch"}, "logits"))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    loaded = torch.export.load(saved).module()
    features = torch.randn(7, DIM, generator=torch.Generator().manual_seed(2))
    for batch in (1, 2, 7):
        torch.testing.assert_close(loaded(features[:batch]), head(features[:batch]))
