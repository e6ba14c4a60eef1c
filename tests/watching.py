"""What tests put where the program looks, to see what it does: images that count, and a watch that listens."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tl_experiments.data.source import ImageSource, Known


@dataclass(frozen=True)
class Watched:
    """Another source, and which of its images were decoded."""

    source: ImageSource
    decoded: list[int] = field(default_factory=list)

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels

    @property
    def known(self) -> Known | None:
        return self.source.known

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> Image.Image:
        self.decoded.append(index)
        return self.source.image(index)

    def content(self, index: int) -> bytes:
        return self.source.content(index)

    def image_from(self, index: int, content: bytes) -> Image.Image:
        self.decoded.append(index)
        return self.source.image_from(index, content)

    def name(self, index: int) -> str:
        return self.source.name(index)


@dataclass
class Notes:
    """Keeps what a user would be told."""

    notices: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def work(self, title: str) -> Callable[[int, int], None]:
        self.titles.append(title)
        return lambda done, total: None  # noqa: ARG005
