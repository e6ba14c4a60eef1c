"""Reading and drawing in order, in this process or in workers, with the same result."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from tl_experiments.data.decoding import ImageError, check
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.signals import die_with_parent, leave_signals_to_parent, shielded

Given = TypeVar("Given")
Made = TypeVar("Made")


def load(make: Callable[[Given], Made], batches: Iterable[Given], *, workers: int, pin: bool = False) -> Iterator[Made]:
    """Yield what is made of each batch, in exactly that order.

    Args:
        make: picklable.
        batches: such as arrays of positions; taken as they are wanted, at most two for each worker ahead, and two at
            the start.
        workers: processes; 0 works in this one, and so does a single batch, which it does not shield from a crash.
        pin: yield tensors that workers made in pinned memory, from where a GPU copies without making the host wait.

    Raises:
        DataError: `make` raised it.
    """
    for made in _made(_Values(make), batches, workers=workers, pin=pin):
        if isinstance(made, DataError):
            raise made
        yield made


def _made(values: "_Values", batches: Iterable[Any], *, workers: int, pin: bool) -> Iterator[Any]:
    if workers == 0:
        return map(values.__getitem__, batches)
    rest = iter(batches)
    first = list(islice(rest, max(workers, 2)))
    if len(first) < 2:  # a worker has it no sooner, and takes a while to start
        return map(values.__getitem__, first)
    loader = DataLoader(
        values,  # pyright: ignore[reportArgumentType] - batches are made here, so its items are whole ones
        batch_size=None,
        sampler=chain(first, rest),  # pyright: ignore[reportArgumentType]
        num_workers=min(workers, len(first)),  # no more than there is work for
        pin_memory=pin,
        generator=torch.Generator(),  # its own, so that workers do not move the global one
        worker_init_fn=_begin_worker,
    )
    with shielded():  # who is interrupted while workers start has some that nobody ends
        return iter(loader)


def _begin_worker(_number: int) -> None:
    leave_signals_to_parent()
    die_with_parent()  # whose files and locks it holds open
    sys.excepthook = _tell_unless_left


def _tell_unless_left(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Tell of an error of the thread that hands tensors over, but not of a parent that was stopped as it took one."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


@dataclass(frozen=True)
class _Values:
    make: Callable[[Any], Any]

    def __getitem__(self, batch: Any) -> Any:
        """An error is a value too, because a worker's exception would arrive as text with a traceback."""
        try:
            return self.make(batch)
        except DataError as error:
            return error


@dataclass(frozen=True)
class ReadDigests:
    """Positions → sha256 of every image's content, in hexadecimal, or what is wrong with it; nothing is decoded."""

    split: Split

    def __call__(self, positions: np.ndarray) -> list[str | ImageError]:
        return [self._read(index) for index in self.split.indices[positions].tolist()]

    def _read(self, index: int) -> str | ImageError:
        try:
            return _digest(self.split.source.content(index))
        except ImageError as error:
            return error


@dataclass(frozen=True)
class CheckImages:
    """Positions → what is wrong with each image, None where it decodes.

    Attributes:
        split: the images; their contents are the bytes of image files.
        digests: of the contents, as they were read.
    """

    split: Split
    digests: Sequence[str]

    def __call__(self, positions: np.ndarray) -> list[ImageError | None]:
        return [self._fault(position) for position in positions.tolist()]

    def _fault(self, position: int) -> ImageError | None:
        index = int(self.split.indices[position])
        try:
            content = self.split.source.content(index)
            _require_unchanged(self.split, index, content, self.digests[position])
            check(content, name=self.split.source.name(index))
        except ImageError as error:
            return error
        return None


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
        content = source.content(index)
        _require_unchanged(self.split, index, content, self.digests[position])
        return draw(source.image_from(index, content), self.canvas)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require_unchanged(split: Split, index: int, content: bytes, digest: str) -> None:
    """See that an image is what was read; what is made of it would else be found under a wrong name."""
    if _digest(content) != digest:
        remedy = known.remedy if (known := split.source.known) else "start it again"
        raise DataError(f"{split.source.name(index)}: has changed since the run began; {remedy}")
