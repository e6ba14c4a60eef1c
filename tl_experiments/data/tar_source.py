"""Images in tar files, each read by itself from where it lies."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tl_experiments.data.decoding import ImageError, decode
from tl_experiments.data.image_files import MAX_BYTES, printable
from tl_experiments.data.source import Known
from tl_experiments.data.tar_download import open_shard
from tl_experiments.data.tar_index import TarIndex, TarShard

_MOST_OPEN = 64  # files at a time; a process may often have 1,024


class _OpenFiles:
    """Tar files that are open to be read; those that are do not go to other processes."""

    def __init__(self, places: Sequence[str], shards: Sequence[TarShard], pack: str | None) -> None:
        """Open nothing yet."""
        self._places, self._shards, self._pack = places, shards, pack
        self._open = OrderedDict[int, int]()

    def __reduce__(self) -> tuple[type["_OpenFiles"], tuple[Sequence[str], Sequence[TarShard], str | None]]:
        return type(self), (self._places, self._shards, self._pack)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            with suppress(OSError):
                os.close(descriptor)

    def read(self, shard: int, *, offset: int, size: int) -> bytes:
        """Return bytes of a shard, fewer where it ends before.

        Raises:
            OSError: it cannot be read.
            DataError: it cannot be fetched.
        """
        if shard not in self._open:
            place, whole = self._places[shard], self._shards[shard].bytes
            self._open[shard] = open_shard(place, size=whole, pack=self._pack)
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(shard)
        return os.pread(self._open[shard], size, offset)  # processes may share a file, but not where they are in it


@dataclass(frozen=True)
class TarSource:
    """All images that an index knows.

    Attributes:
        index: of them.
        places: of its shards, absolute paths or URLs.
        remedy: what helps where an image is not what the index says.
        pack: sha256 of the index where it is on the net beside its shards.
        labels: (N,) int64.
    """

    index: TarIndex = field(repr=False)
    places: tuple[str, ...] = field(repr=False)
    remedy: str = field(repr=False)
    pack: str | None = field(default=None, repr=False)
    labels: np.ndarray = field(init=False, repr=False, compare=False)
    _files: _OpenFiles = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", self.index.label.astype(np.int64))
        object.__setattr__(self, "_files", _OpenFiles(self.places, self.index.shards, self.pack))

    @property
    def known(self) -> Known:
        faults = {
            fault.record: ImageError(self.name(fault.record), fault.kind, fault.reason) for fault in self.index.faults
        }
        return Known(self.index.digests, faults, self.index.checked, self.index.shard, self.remedy)

    def __len__(self) -> int:
        return len(self.index)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        shard, size = int(self.index.shard[index]), int(self.index.size[index])
        if size > MAX_BYTES:
            raise ImageError(self._named(index), "oversized", f"more than {MAX_BYTES / 1e9:.0f} GB; make it smaller")
        try:
            content = self._files.read(shard, offset=int(self.index.offset[index]), size=size)
        except OSError as error:
            raise ImageError(self._named(index), "unreadable", f"cannot be read ({error.strerror})") from error
        if len(content) < size:
            raise ImageError(self._named(index), "truncated", "its shard ends before it; fetch or make the shard again")
        return content

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return decode(content, name=self._named(index))

    def name(self, index: int) -> str:
        return printable(self.index.name(index))

    def _named(self, index: int) -> str:
        return f"{printable(Path(self.places[int(self.index.shard[index])]).name)}, {self.name(index)}"
