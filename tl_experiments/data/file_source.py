"""Image files, by their paths."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tl_experiments.data.decoding import decode
from tl_experiments.data.image_files import printable, read_image_file


@dataclass(frozen=True)
class FileSource:
    """Image files below a root.

    Attributes:
        root: resolved folder.
        paths: relative to the root.
        labels: (N,) int64.
        follow_links: out of the root too.
    """

    root: Path
    paths: tuple[str, ...] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    follow_links: bool
    known = None

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        return read_image_file(self.root / self.paths[index], within=None if self.follow_links else self.root)

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return decode(content, name=printable(self.root / self.paths[index]))

    def name(self, index: int) -> str:
        return printable(self.paths[index])
