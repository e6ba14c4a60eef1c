"""The images of a split as canvases: decoded and checked once, kept in memory when they fit, else streamed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from tl_experiments.data.loading import Loader
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.transforms import Canvas

_CHUNK = 32  # images that are decoded between two reports of progress


class _Canvases(Protocol):
    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]: ...


@dataclass(frozen=True)
class _Kept:
    """All canvases in memory: uint8 (M, 3, C, C)."""

    pixels: torch.Tensor

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        return (self.pixels[torch.from_numpy(indices)] for indices in index_batches)


@dataclass(frozen=True)
class _Streamed:
    """Canvases that do not fit: decoded again in every pass."""

    loader: Loader

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        return (pixels for _, pixels in self.loader.load(index_batches))


@dataclass(frozen=True)
class Images:
    """The images of one split, checked.

    Attributes:
        split: its name.
        canvas: what was drawn.
        labels: (M,) int64.
        names: of the images, for people.
        digests: sha256 of every image's content, in hexadecimal.
        in_memory: whether the canvases are kept.
    """

    split: str
    canvas: Canvas
    labels: torch.Tensor = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    digests: tuple[str, ...] = field(repr=False)
    canvases: _Canvases = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        return isinstance(self.canvases, _Kept)

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield uint8 (B, 3, C, C) for each array of positions, in exactly that order."""
        return self.canvases.batches(index_batches)


def load_images(
    split: Split,
    *,
    canvas: Canvas,
    workers: int,
    memory_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Images:
    """Decode every image of a split once, so that one that cannot be read is named before training begins.

    Args:
        split: M images.
        canvas: what to draw of each.
        workers: processes that decode; 0 decodes in this one. The bytes are the same for any number.
        memory_bytes: the canvases are kept when they fit, else each pass decodes again.
        on_progress: called with (images done, M).

    Raises:
        DataError: an image cannot be read.
    """
    kept = len(split) * canvas.num_bytes <= memory_bytes
    pixels = torch.empty((len(split) if kept else 0, 3, canvas.size, canvas.size), dtype=torch.uint8)
    loader = Loader(split=split, canvas=canvas, workers=workers)
    chunks = [np.arange(start, min(start + _CHUNK, len(split))) for start in range(0, len(split), _CHUNK)]
    digests: list[str] = []
    for chunk_digests, chunk_pixels in loader.load(chunks):
        if kept:
            pixels[len(digests) : len(digests) + len(chunk_digests)] = chunk_pixels
        digests += chunk_digests
        if on_progress is not None:
            on_progress(len(digests), len(split))
    return Images(
        split=split.name,
        canvas=canvas,
        labels=torch.from_numpy(split.labels),
        names=tuple(split.source.name(int(index)) for index in split.indices),
        digests=tuple(digests),
        canvases=_Kept(pixels) if kept else _Streamed(loader),
    )


def fingerprint(dataset: Dataset, *images: Images) -> str:
    """The dataset's identity: sha256 over the class names and every split's rows of (content digest, label), in order.

    Args:
        dataset: for its class names.
        images: of its splits.
    """
    identity = {
        "class_names": dataset.class_names,
        "splits": [[split.split, list(zip(split.digests, split.labels.tolist(), strict=True))] for split in images],
    }
    return hashlib.sha256(json.dumps(identity, separators=(",", ":")).encode()).hexdigest()
