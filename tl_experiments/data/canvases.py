"""The canvases of a split: drawn whenever they are asked for, until, where they fit, all are decoded and kept."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tl_experiments.data.loading import DrawCanvases, load
from tl_experiments.data.transforms import to_device
from tl_experiments.data.watch import Work
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.runtime.row_store import RowStore

_CHUNK = 32  # images that are decoded between two reports of progress


class Canvases:
    """The one part of a split's images that changes: from drawn on demand to kept."""

    def __init__(self, draw: DrawCanvases, *, workers: int, fit: bool, store: RowStore | None) -> None:
        """Decode nothing yet.

        Args:
            draw: positions → canvases.
            workers: processes that decode.
            fit: whether they may be kept in memory.
            store: keeps them from run to run; None keeps none.
        """
        self.fit = fit
        self._draw, self._workers, self._store = draw, workers, store
        self._pixels: torch.Tensor | None = None  # uint8 (M, 3, C, C)

    def decode(self, *, device: torch.device, work: Work, ranks: Ranks = ALONE) -> None:
        """Decode and keep all of them where they fit, unless that has been done; several processes share the work."""
        if self.fit and self._pixels is None:
            own = ranks.places(0, len(self._draw.split))
            self._pixels = ranks.gather(self._filled(own, work), count=len(self._draw.split)).to(device)

    def batches(self, index_batches: Sequence[np.ndarray], *, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield uint8 (B, 3, C, C), on the device, for each array of positions."""
        if self._pixels is None:
            drawn = load(self._draw, index_batches, workers=self._workers, pin=device.type == "cuda")
            return (to_device(canvases, device) for canvases in drawn)
        kept = self._pixels
        positions = split_on_device(torch.arange(len(kept)), index_batches, device=kept.device)
        return (to_device(kept[chosen], device) for chosen in positions)

    def _filled(self, own: np.ndarray, work: Work) -> torch.Tensor:
        """Return the canvases at some positions, uint8 (n, 3, C, C)."""
        size = self._draw.canvas.size
        pixels = torch.empty((len(own), 3, size, size), dtype=torch.uint8)
        if self._store is not None:
            digests = [self._draw.digests[position] for position in map(int, own)]
            self._store.fill(pixels, digests, lambda positions: self._drawn(own[positions], work))
            return pixels
        start = 0
        for canvases in self._drawn(own, work):
            pixels[start : start + len(canvases)] = canvases
            start += len(canvases)
        return pixels

    def _drawn(self, positions: np.ndarray, work: Work) -> Iterator[torch.Tensor]:
        """Decode in chunks, and tell how far it is."""
        done, total = 0, len(positions)
        on_progress = work(f"decoding {total:,} {self._draw.split.name} images")
        for canvases in load(self._draw, cut(positions, _CHUNK), workers=self._workers):
            yield canvases
            done += len(canvases)
            on_progress(done, total)


def split_on_device(
    values: torch.Tensor, index_batches: Sequence[np.ndarray], *, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Pick the values of each array of positions; all are copied to the device at once, so that no batch waits.

    Args:
        values: (N,) on the CPU.
        index_batches: positions.
        device: where the result is.
    """
    order = np.concatenate([np.arange(0), *index_batches])
    return to_device(values[torch.from_numpy(order)], device).split([len(indices) for indices in index_batches])


def cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut positions into chunks of `size` and a last one that may be smaller."""
    return [positions[start : start + size] for start in range(0, len(positions), size)]
