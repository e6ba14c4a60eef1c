"""What is evaluated and kept: the trained weights, or an average of them while they step aside."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch

from tl_experiments.engine.averages import Averages
from tl_experiments.engine.updates import Updates

Tensors = Mapping[str, torch.Tensor]


class Evaluated:
    """The trained tensors of K members, in whose place an average stands while they are evaluated."""

    def __init__(self, tensors: Sequence[Tensors], *, averages: Averages, updates: Updates) -> None:
        """Watch the trained tensors of K members.

        Args:
            tensors: by name.
            averages: of them, which there may be.
            updates: that may make another average of them.
        """
        self._tensors = tensors
        self._averages = averages
        self._updates = updates
        self._aside: Sequence[Tensors] | None = None

    def trained(self, member: int) -> Tensors:
        """Return one member's tensors as training left them, whatever is in their place; not copies."""
        return (self._aside or self._tensors)[member]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have in place what is evaluated; afterwards the trained weights are back, bit for bit."""
        average = self._updates.average
        if average is None and not self._averages:
            yield
            return
        self._aside = [{name: tensor.detach().clone() for name, tensor in own.items()} for own in self._tensors]
        try:
            with average or nullcontext():
                self._averages.put_in_place()
                yield
        finally:
            self._put_back(self._aside)
            self._aside = None

    @torch.no_grad()
    def _put_back(self, trained: Sequence[Tensors]) -> None:
        for tensors, own in zip(self._tensors, trained, strict=True):
            for name, tensor in own.items():
                tensors[name].copy_(tensor)
