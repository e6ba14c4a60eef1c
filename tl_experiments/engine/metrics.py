"""Loss and accuracy as sums on the device: the host waits for them only when it must have them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tl_experiments.data.batches import Batch
from tl_experiments.runtime.ranks import ALONE, Ranks


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


@torch.no_grad()
def batch_sums(batch: Batch, logits: torch.Tensor, losses: torch.Tensor, *, ranks: Ranks = ALONE) -> torch.Tensor:
    """Add up a batch.

    Args:
        batch: whose samples these are.
        logits: (K, B, C).
        losses: (K, B).
        ranks: share the batch; each of them adds up its own part, and returns the sums of all.

    Returns:
        (4, K) float64: losses, hits, samples, and losses that are not finite.
    """
    hits = logits.argmax(dim=-1) == batch.dominant_labels
    rows = (losses, hits, torch.ones_like(hits), ~losses.isfinite())
    sums = torch.stack([row.double().sum(dim=1) for row in rows])
    if batch.stands_in:
        sums.zero_()
    ranks.add_up(sums)
    return sums


class Sums:
    """Sums over an epoch for K members, in float64 on the device."""

    def __init__(self, *, num_members: int, device: torch.device) -> None:
        # Of losses, hits, samples that count, and batches that do not.
        self._sums = torch.zeros(4, num_members, dtype=torch.float64, device=device)
        self._asked: Reading | None = None

    @torch.no_grad()
    def add(self, sums: torch.Tensor, *, updated: torch.Tensor | None = None, skips: bool = False) -> None:
        """Add a batch.

        Args:
            sums: (4, K), as of `batch_sums`.
            updated: bool (K,), the members that the batch has taught; None is all.
            skips: leave the batch out for the others; else its loss, which may not be finite, spoils their mean.
        """
        rows = sums[:3]
        if updated is None:
            self._sums[:3] += rows
            return
        if skips:
            rows = torch.where(updated, rows, 0.0)
        self._sums += torch.cat([rows, (~updated).double()[None]])

    def gather(self, ranks: Ranks) -> None:
        """Add up what several processes have seen, each a part of the samples."""
        ranks.add_up(self._sums)

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
