"""A model with the axis of members that the engine expects."""

import torch
from torch import nn

from tl_experiments.models.model import Model


class OneMember(nn.Module):
    """Images (B, 3, S, S) → logits (1, B, C)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)[None]
