"""Reading and drawing in order, in this process or in workers, with the same result."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.signals import die_with_parent, leave_signals_to_parent, shielded

Made = TypeVar("Made")


def load(
    make: Callable[[np.ndarray], Made], index_batches: Sequence[np.ndarray], *, workers: int, pin: bool = False
) -> Iterator[Made]:
    """Yield what is made of each array of positions, in exactly that order.

    Args:
        make: picklable.
        index_batches: positions.
        workers: processes; 0 works in this one.
        pin: yield tensors that workers made in pinned memory, from where a GPU copies without making the host wait.

    Raises:
        DataError: `make` raised it.
    """
    for made in _made(_Values(make), index_batches, workers=workers, pin=pin):
        if isinstance(made, DataError):
            raise made
        yield made


def _made(values: "_Values", index_batches: Sequence[np.ndarray], *, workers: int, pin: bool) -> Iterator[Any]:
    if workers == 0:
        return map(values.__getitem__, index_batches)
    loader = DataLoader(
        values,  # pyright: ignore[reportArgumentType] - batches are made here, so its items are whole ones
        batch_size=None,
        sampler=index_batches,  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, len(index_batches)),
        pin_memory=pin,
        generator=torch.Generator(),  # its own, so that workers do not move the global one
        worker_init_fn=_begin_worker,
    )
    with shielded():  # who is interrupted while workers start has some that nobody ends
        return iter(loader)


def _begin_worker(_number: int) -> None:
    leave_signals_to_parent()
    die_with_parent()  # whose files and locks it holds open


@dataclass(frozen=True)
class _Values:
    make: Callable[[np.ndarray], Any]

    def __getitem__(self, positions: np.ndarray) -> Any:
        """An error is a value too, because a worker's exception would arrive as text with a traceback."""
        try:
            return self.make(positions)
        except DataError as error:
            return error


@dataclass(frozen=True)
class ReadDigests:
    """Positions → sha256 of every image's content, in hexadecimal; nothing is decoded."""

    split: Split

    def __call__(self, positions: np.ndarray) -> list[str]:
        return [_digest(self.split, index) for index in self.split.indices[positions].tolist()]


@dataclass(frozen=True)
class DrawCanvases:
    """Positions → canvases, uint8 (B, 3, C, C).

    Attributes:
        split: the images.
        canvas: what to draw of each.
        digests: of the split's contents, as they were read.
    """

    split: Split
    canvas: Canvas
    digests: Sequence[str]

    def __call__(self, positions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._draw(position) for position in positions.tolist()]))

    def _draw(self, position: int) -> np.ndarray:
        source, index = self.split.source, int(self.split.indices[position])
        drawn = draw(source.image(index), self.canvas)
        if _digest(self.split, index) != self.digests[position]:  # others would find it under a wrong name
            raise DataError(f"{source.name(index)}: has changed since the run began; start it again")
        return drawn


def _digest(split: Split, index: int) -> str:
    return hashlib.sha256(split.source.content(index)).hexdigest()
