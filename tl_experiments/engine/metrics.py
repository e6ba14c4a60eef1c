"""Loss and accuracy as sums on the device: the host waits for them only when it must have them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def member_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of every sample.

    Args:
        logits: (K, B, C), any floating dtype.
        labels: (K, B) int64.
        label_smoothing: share of the target that all classes are given alike.
        class_weights: (C,) float32, times each class's part of the loss.

    Returns:
        (K, B) float32.
    """
    return F.cross_entropy(
        logits.float().transpose(1, 2),
        labels,
        weight=class_weights,
        label_smoothing=label_smoothing,
        reduction="none",
    )


@dataclass(frozen=True)
class Means:
    """Means over the samples so far, one value per member; not a number where no sample counts."""

    loss: tuple[float, ...]
    acc: tuple[float, ...]
    num_skipped: tuple[int, ...] = ()  # batches that do not count, because a loss or gradient was not finite


class Reading:
    """Sums on their way from the device; nothing waits for them."""

    def __init__(self, sums: torch.Tensor) -> None:
        """Send a copy of the sums (4, K)."""
        on_gpu = sums.device.type == "cuda"
        self._sums = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=on_gpu).copy_(sums, non_blocking=True)
        self._event = torch.cuda.Event() if on_gpu else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(sums.device))

    def means(self) -> Means | None:
        """Return the means; None until they have arrived."""
        arrived = self._event is None or self._event.query()
        return _means(self._sums) if arrived else None


class Sums:
    """Sums over an epoch for K members, in float64 on the device."""

    def __init__(self, *, num_members: int, device: torch.device) -> None:
        # Of losses, hits, samples that count, and batches that do not.
        self._sums = torch.zeros(4, num_members, dtype=torch.float64, device=device)
        self._asked: Reading | None = None

    @torch.no_grad()
    def add(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        losses: torch.Tensor,
        *,
        updated: torch.Tensor | None = None,
        skips: bool = False,
    ) -> None:
        """Add a batch.

        Args:
            logits: (K, B, C).
            labels: (K, B).
            losses: (K, B).
            updated: bool (K,), the members that the batch has taught; None is all.
            skips: leave the batch out for the others; else its loss, which may not be finite, spoils their mean.
        """
        hits = logits.argmax(dim=-1) == labels
        loss, num_hits = losses.double().sum(dim=1), hits.double().sum(dim=1)
        num_samples = torch.full_like(loss, labels.shape[1])
        if updated is None:
            self._sums += torch.stack([loss, num_hits, num_samples, torch.zeros_like(loss)])
            return
        rows = [loss, num_hits, num_samples]
        if skips:
            rows = [torch.where(updated, row, 0.0) for row in rows]
        self._sums += torch.stack([*rows, (~updated).double()])

    def state(self, member: int) -> torch.Tensor:
        """Return the sums of one member, (4,) float64; not a copy."""
        return self._sums[:, member]

    def load(self, states: Sequence[torch.Tensor]) -> None:
        """Go on with what `state` returned for each of K members."""
        self._sums.copy_(torch.stack(list(states), dim=1))

    def ask(self) -> None:
        """Send for the sums so far, unless others are still on their way; nothing waits."""
        if self._asked is None:
            self._asked = Reading(self._sums)

    def arrived(self) -> Means | None:
        """Return what was asked for, once, as soon as it is here."""
        means = self._asked and self._asked.means()
        if means is not None:
            self._asked = None
        return means

    def means(self) -> Means:
        """Wait for the device and divide by the samples so far."""
        return _means(self._sums)


def _means(sums: torch.Tensor) -> Means:
    loss, acc = (sums[:2] / sums[2]).tolist()
    return Means(loss=tuple(loss), acc=tuple(acc), num_skipped=tuple(int(count) for count in sums[3].tolist()))
