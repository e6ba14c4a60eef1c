"""Canvases of many images, drawn in workers; one that cannot be is told of among the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from PIL import Image

from tl_experiments.data.decoding import ImageError, decode
from tl_experiments.data.image_files import read_image_file
from tl_experiments.data.source import ImageSource
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.inference.image_list import Listed

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn(Generic[Item]):
    """N images, some of which could not be drawn.

    Attributes:
        items: N, in their order.
        faults: for each what is wrong with it, None where nothing is.
        canvases: uint8 (S, 3, C, C) of the S sound ones, in the same order.
    """

    items: Sequence[Item]
    faults: Sequence[ImageError | None]
    canvases: torch.Tensor = field(repr=False)

    def pin_memory(self) -> Self:
        """As PyTorch's loader asks for what a worker has made."""
        return replace(self, canvases=self.canvases.pin_memory())


@dataclass(frozen=True)
class DrawItems(Generic[Item]):
    """Items → `Drawn`.

    Attributes:
        draw: an item's canvas, uint8 (3, C, C); raises ImageError where there is none.
        canvas: which it draws.
    """

    draw: Callable[[Item], np.ndarray]
    canvas: Canvas

    def __call__(self, items: Sequence[Item]) -> Drawn[Item]:
        faults: list[ImageError | None] = [None] * len(items)
        size = self.canvas.size
        canvases, sound = torch.empty((len(items), 3, size, size), dtype=torch.uint8), 0
        for at, item in enumerate(items):
            try:
                canvases[sound] = torch.from_numpy(self.draw(item))
                sound += 1
            except ImageError as error:
                faults[at] = error
        return Drawn(items, faults, canvases[:sound])


def decode_listed(listed: Listed) -> Image.Image:
    """Decode a listed file to RGB; links may lead anywhere, since a person named the files.

    Raises:
        ImageError: it cannot be used.
    """
    if listed.fault is not None:
        raise ImageError(listed.name, "unreadable", listed.fault)
    return decode(read_image_file(Path(listed.path), within=None), name=listed.name)


@dataclass(frozen=True)
class DrawFile:
    """A listed file → its canvas."""

    canvas: Canvas

    def __call__(self, listed: Listed) -> np.ndarray:
        return draw(decode_listed(listed), self.canvas)


@dataclass(frozen=True)
class DrawFromSource:
    """The index of an image in its source → its canvas."""

    source: ImageSource
    canvas: Canvas

    def __call__(self, index: int) -> np.ndarray:
        return draw(self.source.image(index), self.canvas)
