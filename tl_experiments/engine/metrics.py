"""Loss and accuracy as sums on the device: the host waits for them only when it asks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


def member_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every sample.

    Args:
        logits: (K, B, C), any floating dtype.
        labels: (K, B) int64.

    Returns:
        (K, B) float32.
    """
    return F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")


@dataclass(frozen=True)
class Means:
    """Means over the samples so far, one value per member."""

    loss: tuple[float, ...]
    acc: tuple[float, ...]


class Sums:
    """Sums over an epoch for K members, in float64 on the device."""

    def __init__(self, *, num_members: int, device: torch.device) -> None:
        self._sums = torch.zeros(2, num_members, dtype=torch.float64, device=device)
        self._count = 0

    @torch.no_grad()
    def add(self, logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor) -> None:
        """Add a batch: logits (K, B, C), labels (K, B) and losses (K, B)."""
        hits = logits.argmax(dim=-1) == labels
        self._sums += torch.stack([losses.double().sum(dim=1), hits.double().sum(dim=1)])
        self._count += labels.shape[1]

    def means(self) -> Means:
        """Wait for the device and divide by the samples so far."""
        loss, acc = (self._sums / max(self._count, 1)).tolist()
        return Means(loss=tuple(loss), acc=tuple(acc))
