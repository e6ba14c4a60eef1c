"""Decoding in order, in this process or in workers, with the same bytes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, draw
from tl_experiments.runtime.errors import DataError

Chunk = tuple[list[str], torch.Tensor]  # sha256 of each image's content, and canvases uint8 (B, 3, C, C)


@dataclass(frozen=True)
class Loader:
    """Draws the canvases of a split.

    Attributes:
        split: the images.
        canvas: what to draw of each.
        workers: processes; 0 decodes in this one.
    """

    split: Split
    canvas: Canvas
    workers: int

    def load(self, index_batches: Sequence[np.ndarray]) -> Iterator[Chunk]:
        """Yield a chunk for each array of positions, in exactly that order; raises DataError on a damaged image."""
        for chunk in self._chunks(index_batches):
            if isinstance(chunk, DataError):
                raise chunk
            yield chunk

    def _chunks(self, index_batches: Sequence[np.ndarray]) -> Iterator[Chunk | DataError]:
        chunks = _Chunks(self.split, self.canvas)
        if self.workers == 0:
            return map(chunks.__getitem__, index_batches)
        loader = DataLoader(
            chunks,  # pyright: ignore[reportArgumentType] - batches are made here, so its items are chunks
            batch_size=None,
            sampler=index_batches,  # pyright: ignore[reportArgumentType]
            num_workers=min(self.workers, len(index_batches)),
            generator=torch.Generator(),  # its own, so that workers do not move the global one
        )
        return iter(loader)


@dataclass(frozen=True)
class _Chunks:
    split: Split
    canvas: Canvas

    def __getitem__(self, positions: np.ndarray) -> Chunk | DataError:
        """One chunk; an error is a value, because a worker's exception would arrive as text with a traceback."""
        digests, canvases = [], []
        source = self.split.source
        try:
            for index in self.split.indices[positions].tolist():
                digests.append(hashlib.sha256(source.content(index)).hexdigest())
                canvases.append(draw(source.image(index), self.canvas))
        except DataError as error:
            return error
        return digests, torch.from_numpy(np.stack(canvases))
