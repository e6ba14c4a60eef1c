"""A bank of K linear heads that train side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.models.head_kinds import linear_head

# A batched product of one rounds otherwise than one of two, three or fifty, which agree; a lone head is computed twice.
SMALLEST_PRODUCT = 2
ALIGNED = 4  # features of 4 bytes


class HeadBank(nn.Module):
    """K linear heads in two tensors: weight (K, C, D) and bias (K, C), float32."""

    def __init__(self, *, feature_dim: int, num_classes: int, seeds: Sequence[int]) -> None:
        """Initialise each head as it would be alone.

        Args:
            feature_dim: D.
            num_classes: C.
            seeds: one per head.
        """
        super().__init__()
        heads = [linear_head(feature_dim=feature_dim, num_classes=num_classes, seed=seed) for seed in seeds]
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in heads]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads]))

    @property
    def num_members(self) -> int:
        return len(self.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (K, B, D), or (1, B, D) for all, to logits (K, B, C), in float32 whatever the backbone is in."""
        count = max(self.num_members, SMALLEST_PRODUCT)
        weight, bias = self.weight.expand(count, -1, -1), self.bias.expand(count, -1)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float().expand(count, -1, -1)
            # A head that begins off a boundary of 16 bytes would get another kernel, and other bits than alone.
            if odd := -features.shape[-1] % ALIGNED:
                features, weight = F.pad(features, (0, odd)), F.pad(weight, (0, odd))
            samples = features.transpose(1, 2)
            # Classes by samples: both this product and that of the weights' gradient are several times as fast so.
            logits = torch.baddbmm(bias[:, :, None], weight, samples)
        return logits[: self.num_members].transpose(1, 2)

    def head(self, member: int) -> nn.Linear:
        """Return one head as a layer that shares the bank's storage: training the bank trains it."""
        num_classes, feature_dim = self.weight.shape[1:]
        head = nn.Linear(feature_dim, num_classes, device="meta")
        head.weight = nn.Parameter(self.weight.detach()[member])
        head.bias = nn.Parameter(self.bias.detach()[member])
        return head
