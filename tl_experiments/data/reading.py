"""Reading and checking the images of a split: what each one's content is, or what is wrong with it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tl_experiments.data.canvases import cut
from tl_experiments.data.decoding import ImageError
from tl_experiments.data.digests import BYTES, Digests
from tl_experiments.data.loading import CheckImages, ReadDigests, load
from tl_experiments.data.source import Known, Split
from tl_experiments.data.watch import Work
from tl_experiments.runtime.row_store import RowStore

_CHUNK = 256  # images that are read between two reports of progress
_CHECK_CHUNK = 32  # and images that are decoded


@dataclass(frozen=True)
class Reading:
    """A split whose images were read.

    Attributes:
        split: its images.
        digests: sha256 of the content of each; of what could not be read it means nothing.
        faults: position → what is wrong there.
        checked: whether all that is not among the faults is known to be decoded.
    """

    split: Split
    digests: Digests = field(repr=False)
    faults: Mapping[int, ImageError]
    checked: bool = False

    def sound_positions(self) -> np.ndarray:
        """Return where nothing is wrong, ascending int64."""
        return np.delete(np.arange(len(self.split)), list(self.faults))

    def sound(self) -> Split:
        """Return the split without what is wrong, in the same order."""
        return Split(self.split.name, self.split.source, self.split.indices[self.sound_positions()])

    def sound_digests(self) -> Digests:
        """Return those of `sound`."""
        return self.digests.take(self.sound_positions()) if self.faults else self.digests


def read_split(split: Split, *, workers: int, on_progress: Callable[[int, int], None]) -> Reading:
    """Read every image of a split once, unless its source knows what it would find; none is decoded.

    Args:
        split: M images.
        workers: processes that read; 0 does so in this one.
        on_progress: called with (images read, M).

    Raises:
        DataError: an image cannot be read, and its source does not say which.
    """
    if split.source.known is not None:
        on_progress(len(split), len(split))
        return _known(split, split.source.known)
    rows, faults, done = np.zeros((len(split), BYTES), dtype=np.uint8), dict[int, ImageError](), 0
    for chunk in load(ReadDigests(split), cut(np.arange(len(split)), _CHUNK), workers=workers):
        for at, outcome in enumerate(chunk, start=done):
            if isinstance(outcome, ImageError):
                faults[at] = outcome
            else:
                rows[at] = np.frombuffer(bytes.fromhex(outcome), dtype=np.uint8)
        done += len(chunk)
        on_progress(done, len(split))
    return Reading(split, Digests(rows), faults)


def _known(split: Split, known: Known) -> Reading:
    bad = np.flatnonzero(np.isin(split.indices, list(known.faults))) if known.faults else ()
    faults = {int(at): known.faults[int(split.indices[at])] for at in bad}
    return Reading(split, known.digests.take(split.indices), faults, checked=known.checked)


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
    positions, digests = reading.sound_positions(), reading.sound_digests()
    check, faults = CheckImages(reading.sound(), digests), dict[int, ImageError]()
    if not len(positions) or reading.checked:
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
    return replace(reading, faults=dict(sorted({**reading.faults, **faults}.items())), checked=True)
