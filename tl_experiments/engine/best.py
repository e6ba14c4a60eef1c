"""The best weights so far, one member at a time."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch

from tl_experiments.engine.metrics import Means
from tl_experiments.models.sharded import put

SCORE = "score"  # among the names of tensors, which all have a dot


class BestWeights:
    """Keeps each member's trained tensors at its best epoch: highest val/acc, of equal ones lowest val/loss."""

    def __init__(self, tensors: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Watch the trained tensors of K members; they are read when an epoch is the best, and written by `restore`."""
        self._tensors = tensors
        self._copies: list[dict[str, torch.Tensor]] = [{} for _ in tensors]
        self.epoch = [0] * len(tensors)
        self.acc = [-1.0] * len(tensors)
        self._loss = [float("inf")] * len(tensors)

    def state(self, member: int) -> dict[str, torch.Tensor]:
        """Return a member's best tensors and its score, (3,) float64: epoch, val/acc, val/loss."""
        score = torch.tensor([self.epoch[member], self.acc[member], self._loss[member]], dtype=torch.float64)
        return {SCORE: score, **self._copies[member]}

    def load(self, member: int, state: Mapping[str, torch.Tensor]) -> None:
        """Go on with what `state` returned."""
        epoch, self.acc[member], self._loss[member] = state[SCORE].tolist()
        self.epoch[member] = int(epoch)
        copies = {name: tensor for name, tensor in state.items() if name != SCORE}
        self._copies[member] = {
            name: put(torch.empty_like(self._tensors[member][name]), tensor) for name, tensor in copies.items()
        }

    def update(self, epoch: int, val: Means, *, ended: Collection[int] = ()) -> tuple[bool, ...]:
        """Keep the members for which this epoch is the best so far, but for those that have ended; returns which."""
        improved = tuple(
            member not in ended and math.isfinite(loss) and (acc, -loss) > (self.acc[member], -self._loss[member])
            for member, (acc, loss) in enumerate(zip(val.acc, val.loss, strict=True))
        )
        for member, better in enumerate(improved):
            if better:
                self.epoch[member], self.acc[member], self._loss[member] = epoch, val.acc[member], val.loss[member]
                self._copies[member] = {name: t.detach().clone() for name, t in self._tensors[member].items()}
        return improved

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back in their place."""
        for tensors, copies in zip(self._tensors, self._copies, strict=True):
            for name, copy in copies.items():
                tensors[name].copy_(copy)
