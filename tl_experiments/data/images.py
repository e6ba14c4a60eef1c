"""The images of a split: labels, names and digests at once, canvases when they are needed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

import numpy as np
import torch

from tl_experiments.data.canvases import Canvases
from tl_experiments.data.digests import Digests
from tl_experiments.data.loading import DrawCanvases
from tl_experiments.data.reading import Reading, read_split
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.transforms import Canvas
from tl_experiments.data.watch import Work
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.runtime.row_store import RowStore

_CPU = torch.device("cpu")
_CHUNK = 4096  # parts of a text that is digested, which never is in memory as a whole


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """The names of a split's images, each made when it is asked for."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return Names(Split(self.split.name, self.split.source, self.split.indices[index]))
        return self.split.source.name(int(self.split.indices[index]))


@dataclass(frozen=True)
class Images:
    """The images of one split, read.

    Attributes:
        split: its name.
        canvas: what is drawn of each.
        labels: (M,) int64.
        names: of the images, for people.
        digests: sha256 of every image's content, in hexadecimal.
        canvases: drawn when they are asked for, or kept.
        shards: (M,) int32, where images lie in shards, which are read one after another; None where they do not.
    """

    split: str
    canvas: Canvas
    labels: torch.Tensor = field(repr=False)
    names: Sequence[str] = field(repr=False)
    digests: Digests = field(repr=False)
    canvases: Canvases = field(repr=False)
    shards: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """Identity of the images' contents, in order: a sha256 in hexadecimal."""
        return _sha256(f"{digest}\n" if at < len(self) else digest for at, digest in enumerate(self.digests, start=1))

    @property
    def fit(self) -> bool:
        """Whether `decode` keeps the canvases in memory."""
        return self.canvases.fit

    def decode(self, *, device: torch.device, work: Work, ranks: Ranks = ALONE) -> None:
        """Decode every image before passes over all of them, where the canvases fit into memory. Once is enough.

        Where they do not, nothing is decoded: every pass draws them again.

        Args:
            device: where they are kept.
            work: given a title, returns a callback (images done, images); not called where nothing is decoded.
            ranks: share the work; all of them ask for it.

        Raises:
            DataError: an image cannot be decoded, or is not what it was when it was read.
        """
        self.canvases.decode(device=device, work=work, ranks=ranks)

    def batches(self, index_batches: Sequence[np.ndarray], *, device: torch.device = _CPU) -> Iterator[torch.Tensor]:
        """Yield uint8 (B, 3, C, C) for each array of positions, in exactly that order.

        What is not kept is decoded, and nothing beside it.

        Args:
            index_batches: positions.
            device: where the canvases are wanted.

        Raises:
            DataError: as `decode` does.
        """
        return self.canvases.batches(index_batches, device=device)


def load_images(
    split: Split,
    *,
    canvas: Canvas,
    workers: int,
    memory_bytes: int,
    store: RowStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Images:
    """Read every image of one split once; none is decoded.

    Args:
        split: M images.
        canvas: what to draw of each.
        workers: processes that read and decode; 0 does so in this one. The bytes are the same for any number.
        memory_bytes: the canvases may be kept when they fit, else each pass decodes again.
        store: of canvases like this one, where those that are kept come from and go to.
        on_progress: called with (images read, M).

    Raises:
        DataError: an image cannot be read.
    """
    reading = read_split(split, workers=workers, on_progress=on_progress or (lambda *_: None))
    for fault in reading.faults.values():
        raise fault
    return make_images(reading, canvas=canvas, workers=workers, memory_bytes=memory_bytes, store=store)


def make_images(reading: Reading, *, canvas: Canvas, workers: int, memory_bytes: int, store: RowStore | None) -> Images:
    """Take a split that was read without what is wrong in it; the other arguments are those of `load_images`."""
    split, digests = reading.sound(), reading.sound_digests()
    known = split.source.known
    return Images(
        split=split.name,
        canvas=canvas,
        labels=torch.from_numpy(split.labels),
        names=Names(split),
        digests=digests,
        canvases=Canvases(
            DrawCanvases(split, canvas, digests),
            workers=workers,
            fit=len(split) * canvas.num_bytes <= memory_bytes,
            store=store,
        ),
        shards=None if known is None else known.shards[split.indices],
    )


def fingerprint(dataset: Dataset, *images: Images) -> str:
    """The dataset's identity: sha256 over the class names and every split's rows of (content digest, label), in order.

    Args:
        dataset: for its class names.
        images: of its splits.
    """
    return _sha256(_identity(dataset.class_names, images))


def _identity(class_names: Sequence[str], images: Sequence[Images]) -> Iterator[str]:
    """Yield in parts the JSON of {class_names, splits: [[name, [[digest, label], ...]], ...]}."""
    yield f'{{"class_names":{json.dumps(class_names, separators=(",", ":"))},"splits":['
    for number, split in enumerate(images):
        yield f"{',' * (number > 0)}[{json.dumps(split.split)},["
        for at, (digest, label) in enumerate(zip(split.digests, split.labels.numpy(), strict=True)):
            yield f'{"," * (at > 0)}["{digest}",{label}]'
        yield "]]"
    yield "]}"


def _sha256(parts: Iterable[str]) -> str:
    digest, rest = hashlib.sha256(), iter(parts)
    while chunk := "".join(islice(rest, _CHUNK)):
        digest.update(chunk.encode())
    return digest.hexdigest()
