"""A model: a head after a backbone, from image to logits."""

import torch
from torch import nn

from tl_experiments.models.backbone import Backbone


class Model(nn.Module):
    """What is trained, exported and used."""

    def __init__(self, backbone: Backbone, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, 3, S, S) to logits (B, C); the head computes in float32 under autocast too."""
        features = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features.float())
