"""A model: a head after a backbone, from image to logits."""

import torch
from torch import nn

from tl_experiments.models.backbone import Backbone


class Model(nn.Module):
    """What is trained, exported and used."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, C)."""
        return classify(self.head, self.backbone(images))


def classify(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Map features (B, D) of any dtype to logits (B, C); a head computes in float32 under autocast too."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())
