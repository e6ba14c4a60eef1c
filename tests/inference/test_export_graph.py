"""Graphs: a head of any kind can be traced for batches of any size, and tracing leaves no trace."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from torch import nn

from tests.inference.test_saved_model import HEADS
from tl_experiments.data.transforms import Normalise
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


class Named(nn.Module):
    """Has its input called `images`, as the networks of graphs do."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_traced_for_any_batch(name: str) -> None:
    head = made(HEADS[name])
    program = trace(Graph(Named(head).eval(), torch.zeros(2, DIM), {0: "batch"}, "logits"))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    loaded = torch.export.load(saved).module()
    features = torch.randn(7, DIM, generator=torch.Generator().manual_seed(2))
    for batch in (1, 2, 7):
        torch.testing.assert_close(loaded(features[:batch]), head(features[:batch]))


def test_what_is_computed_once_is_not_computed_while_tracing() -> None:
    """There it would be without values, and stay so for the whole process."""
    normalise = Normalise((0.11, 0.12, 0.13), (0.2, 0.3, 0.4))  # that no other test has asked for
    images = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    program = trace(Graph(Named(normalise).eval(), images, {0: "batch"}, "images"))
    expected = ((1 - torch.tensor(normalise.mean)) / torch.tensor(normalise.std)).view(3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(normalise(images), expected)
    torch.testing.assert_close(program.module()(images), expected)
