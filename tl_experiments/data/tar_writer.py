"""Writing images into tar files, as WebDataset has them: KEY.jpg beside KEY.cls, the number of its class."""

import io
import tarfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from tl_experiments.data.digests import BYTES
from tl_experiments.data.tar_index import Records
from tl_experiments.data.tar_walk import LABEL


class TarWriter:
    """One shard that is being written; the same images give the same bytes."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        # USTAR: a header is one block, so that where the content begins is known.
        self._archive = tarfile.open(path, "x:", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by `with`
        self._spots, self._labels = list[tuple[int, int]](), list[int]()
        self._digests, self._names = list[bytes](), list[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._archive.close()

    def add(self, key: str, content: bytes, *, suffix: str, label: int, sha256: str, name: str) -> None:
        """Write an image.

        Args:
            key: of the sample, without a dot.
            content: bytes of an image file, which are kept as they are.
            suffix: that tells their format, such as jpg.
            label: its class.
            sha256: of the content, in hexadecimal.
            name: for people.
        """
        self._put(f"{key}.{LABEL}", str(label).encode())
        self._spots.append((self._put(f"{key}.{suffix}", content), len(content)))
        self._labels.append(label)
        self._digests.append(bytes.fromhex(sha256))
        self._names.append(name)

    def _put(self, name: str, content: bytes) -> int:
        """Write a file; returns where its content begins."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        begin = self._archive.offset + tarfile.BLOCKSIZE
        self._archive.addfile(info, io.BytesIO(content))
        self._archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep all of them
        return begin

    def records(self) -> Records:
        """Return what was written."""
        spots = np.array(self._spots, dtype=np.int64).reshape(-1, 2)
        return Records(
            offset=spots[:, 0].copy(),
            size=spots[:, 1].copy(),
            label=np.array(self._labels, dtype=np.int32),
            sha256=np.frombuffer(b"".join(self._digests), dtype=np.uint8).reshape(-1, BYTES),
            name=pa.array(self._names, pa.large_string()),
        )
