"""Batches that are computed in parts, whose gradients add up to those of the whole: by wish, or as memory wants it."""

from collections.abc import Callable, Sequence

import torch

from tl_experiments.data.batches import Batch
from tl_experiments.runtime.memory import is_out_of_memory

Backward = Callable[[Batch, bool], tuple[torch.Tensor, torch.Tensor]]


class MicroBatches:
    """How many samples are computed at a time: so many, or all of a batch, until that proves too many.

    What the parts add up to is the gradient of the whole batch but for rounding, for dropout, whose masks are drawn for
    each part, and for BatchNorm in train mode, which normalises by the part.
    """

    def __init__(self, *, halves: bool, size: int | None = None, num_processes: int = 1) -> None:
        """Begin with parts of at most `size` samples.

        Args:
            halves: go on with smaller parts when memory does not hold one; else that is an error.
            size: at least 1, over all processes; None is the whole batch.
            num_processes: that share each batch, and compute as many parts each.
        """
        self._num_processes = num_processes
        self.size = size
        self._halves = halves

    def run(
        self, backward: Backward, batch: Batch, *, begin_again: Callable[[], None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradients of a batch.

        Args:
            backward: adds a part's gradients to those that are there, and is told whether it is the last part; returns
                its logits (K, b, C) and losses (K, b).
            batch: K members' samples.
            begin_again: called before an attempt after the first; has everything as it was before that.

        Returns:
            logits (K, B, C) and losses (K, B).

        Raises:
            RuntimeError, MemoryError: memory is too small, and parts may not be smaller or cannot be.
        """
        while (outcome := self._try(backward, batch)) is None:
            begin_again()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return outcome

    def _try(self, backward: Backward, batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return None when the parts were too large, and are smaller now."""
        try:
            *parts, last = self._parts(batch)
            outcomes = [*(backward(part, False) for part in parts), backward(last, True)]
        except (RuntimeError, MemoryError) as error:
            size = self.size or batch.num_in_step
            if not self._halves or size == 1 or not is_out_of_memory(error):
                raise
            self.size = (size + 1) // 2
            return None  # once the frames that hold the tensors are gone
        if len(outcomes) == 1:
            return outcomes[0]
        logits, losses = zip(*outcomes, strict=True)
        return torch.cat(logits, dim=1), torch.cat(losses, dim=1)

    def _parts(self, batch: Batch) -> Sequence[Batch]:
        count = 1 if self.size is None else -(-batch.num_in_step // self.size)
        count = min(count, max(1, batch.num_in_step // self._num_processes))  # of which each has a sample for each
        return batch.split(count) if count > 1 else [batch]
