"""Loss and accuracy as sums on the device: the host waits for them only when it must have them."""

from collections.abc import Sequence
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


class Reading:
    """Sums on their way from the device; nothing waits for them."""

    def __init__(self, sums: torch.Tensor, *, count: int) -> None:
        """Send a copy of the sums (2, K) over samples whose number is `count`."""
        on_gpu = sums.device.type == "cuda"
        self._count = count
        self._sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=on_gpu).copy_(sums, non_blocking=True)
        self._event = torch.cuda.Event() if on_gpu else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(sums.device))

    def means(self) -> Means | None:
        """Return the means; None until they have arrived."""
        arrived = self._event is None or self._event.query()
        return _means(self._sums, self._count) if arrived else None


class Sums:
    """Sums over an epoch for K members, in float64 on the device."""

    def __init__(self, *, num_members: int, device: torch.device) -> None:
        self._sums = torch.zeros(2, num_members, dtype=torch.float64, device=device)
        self._count = 0
        self._asked: Reading | None = None

    @torch.no_grad()
    def add(self, logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor) -> None:
        """Add a batch: logits (K, B, C), labels (K, B) and losses (K, B)."""
        hits = logits.argmax(dim=-1) == labels
        self._sums += torch.stack([losses.double().sum(dim=1), hits.double().sum(dim=1)])
        self._count += labels.shape[1]

    def state(self, member: int) -> torch.Tensor:
        """Return the sums of one member, (2,) float64; not a copy."""
        return self._sums[:, member]

    def load(self, states: Sequence[torch.Tensor], *, count: int) -> None:
        """Go on with what `state` returned for each of K members, over so many samples."""
        self._sums.copy_(torch.stack(list(states), dim=1))
        self._count = count

    def ask(self) -> None:
        """Send for the sums so far, unless others are still on their way; nothing waits."""
        if self._asked is None:
            self._asked = Reading(self._sums, count=self._count)

    def arrived(self) -> Means | None:
        """Return what was asked for, once, as soon as it is here."""
        means = self._asked and self._asked.means()
        if means is not None:
            self._asked = None
        return means

    def means(self) -> Means:
        """Wait for the device and divide by the samples so far."""
        return _means(self._sums, self._count)


def _means(sums: torch.Tensor, count: int) -> Means:
    loss, acc = (sums / max(count, 1)).tolist()
    return Means(loss=tuple(loss), acc=tuple(acc))
