"""Reading and checking the images of a split: what each one's content is, or what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from tl_experiments.data.canvases import cut
from tl_experiments.data.decoding import ImageError
from tl_experiments.data.loading import CheckImages, ReadDigests, load
from tl_experiments.data.source import Split
from tl_experiments.data.watch import Work
from tl_experiments.runtime.row_store import RowStore

_CHUNK = 256  # images that are read between two reports of progress
_CHECK_CHUNK = 32  # and images that are decoded


@dataclass(frozen=True)
class Reading:
    """A split whose images were read.

    Attributes:
        split: its images.
        outcomes: for each, sha256 of its content in hexadecimal, or what is wrong with it.
    """

    split: Split
    outcomes: tuple[str | ImageError, ...] = field(repr=False)

    @property
    def faults(self) -> dict[int, ImageError]:
        """Position → what is wrong there."""
        return {at: outcome for at, outcome in enumerate(self.outcomes) if isinstance(outcome, ImageError)}

    @property
    def digests(self) -> dict[int, str]:
        """Position → digest of the content, where nothing is wrong."""
        return {at: outcome for at, outcome in enumerate(self.outcomes) if isinstance(outcome, str)}

    def sound(self) -> Split:
        """Return the split without what is wrong, in the same order."""
        return Split(self.split.name, self.split.source, self.split.indices[list(self.digests)])

    def with_faults(self, faults: Mapping[int, ImageError]) -> "Reading":
        return Reading(self.split, tuple(faults.get(at, outcome) for at, outcome in enumerate(self.outcomes)))


def read_split(split: Split, *, workers: int, on_progress: Callable[[int, int], None]) -> Reading:
    """Read every image of a split once; none is decoded.

    Args:
        split: M images.
        workers: processes that read; 0 does so in this one.
        on_progress: called with (images read, M).

    Raises:
        DataError: an image cannot be read, and its source does not say which.
    """
    outcomes: list[str | ImageError] = []
    for chunk in load(ReadDigests(split), cut(np.arange(len(split)), _CHUNK), workers=workers):
        outcomes += chunk
        on_progress(len(outcomes), len(split))
    return Reading(split, tuple(outcomes))


def check_split(reading: Reading, *, workers: int, store: RowStore | None, work: Work) -> Reading:
    """Decode every image whose content is not known to decode; returns the reading with what was found wrong.

    Args:
        reading: of files.
        workers: processes that decode; 0 does so in this one.
        store: knows what was checked before, and is told what is checked now; None checks all.
        work: given a title, returns a callback (images done, images); not called where nothing is decoded.

    Raises:
        DataError: a file has changed since it was read.
    """
    positions, digests = np.array(list(reading.digests), dtype=np.int64), tuple(reading.digests.values())
    check, faults = CheckImages(reading.sound(), digests), dict[int, ImageError]()
    if not len(positions):
        return reading

    def decode(wanted: np.ndarray) -> Iterator[torch.Tensor]:
        on_progress, done = work(f"checking {len(wanted):,} {reading.split.name} images"), 0
        chunks = cut(wanted, _CHECK_CHUNK)
        for chunk, found in zip(chunks, load(check, chunks, workers=workers), strict=True):
            faults.update({int(at): fault for at, fault in zip(positions[chunk], found, strict=True) if fault})
            yield torch.tensor([fault is None for fault in found], dtype=torch.uint8)
            done += len(chunk)
            on_progress(done, len(wanted))

    decodes = torch.zeros(len(digests), dtype=torch.uint8)
    if store is None:
        decodes = torch.cat(list(decode(np.arange(len(digests)))))
    else:
        store.fill(decodes, digests, decode)
    untold = [at for at in np.flatnonzero(decodes.numpy() == 0) if int(positions[at]) not in faults]
    if untold:  # known to be damaged, or the same content as another: why, and each by its own name
        for _ in decode(np.array(untold, dtype=np.int64)):
            pass
    return reading.with_faults(faults)
