"""What a dataset is: decoded images by index, and the three splits that point into them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tl_experiments.data.decoding import ImageError
from tl_experiments.data.digests import Digests


@dataclass(frozen=True)
class Known:
    """What an index says of N images, so that none need be read before it is used.

    Attributes:
        digests: sha256 of their contents.
        faults: index → what is wrong with an image.
        checked: whether those without a fault are known to be decoded by the decoders that are here.
        shards: (N,) int32, the shard of each; shards are read one after another.
        remedy: what helps where an image is not what the index says.
    """

    digests: Digests = field(repr=False)
    faults: Mapping[int, ImageError]
    checked: bool
    shards: np.ndarray = field(repr=False)
    remedy: str


class ImageSource(Protocol):
    """Random access to images; picklable, because it goes to the workers that decode."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 class indices."""
        ...

    @property
    def known(self) -> Known | None:
        """What is known of the images without reading them; None where nothing is."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The decoded RGB image; raises DataError with the file's name when it cannot be read."""
        ...

    def content(self, index: int) -> bytes:
        """Bytes that determine the image, not decoded; raises DataError when they cannot be read."""
        ...

    def image_from(self, index: int, content: bytes) -> Image.Image:
        """The image whose content was read before, as `image` gives it, without reading it again."""
        ...

    def name(self, index: int) -> str:
        """A name for people: a path relative to the root, or `train/123`."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Images that are already pixels in memory.

    Attributes:
        pixels: uint8, (N, H, W) grey or (N, H, W, 3) RGB.
        labels: (N,) int64.
        prefix: names are `prefix/index`.
    """

    pixels: np.ndarray
    labels: np.ndarray
    prefix: str
    known = None

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def content(self, index: int) -> bytes:
        pixels = self.pixels[index]
        return repr(pixels.shape).encode() + pixels.tobytes()

    def image_from(self, index: int, content: bytes) -> Image.Image:  # noqa: ARG002 - the pixels are at hand
        return self.image(index)

    def name(self, index: int) -> str:
        return f"{self.prefix}/{index}"


@dataclass(frozen=True)
class Split:
    """A named, ordered choice of a source's images.

    Attributes:
        name: train, val or test.
        source: where the images are.
        indices: (M,) int64 into the source.
    """

    name: str
    source: ImageSource
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(M,) int64."""
        return self.source.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Files:
    """Where images are files, any of which may be damaged; the bytes of such a file are the image's content.

    Attributes:
        root: the folder of all files, or the table that lists or holds them; None where neither is one's own.
        follow_links: out of the folder too.
        on_bad_image: what is done about images that cannot be read or decoded: error, or skip.
        skipped_by: what a user gives to leave them out.
    """

    root: Path | None
    follow_links: bool
    on_bad_image: str
    skipped_by: str = "dataset.on_bad_image=skip"

    @property
    def scan_command(self) -> str | None:
        """The shell command that lists everything that is wrong with the images; None where there is none."""
        if self.root is None:
            return None
        return f"tlx scan {'--follow-links ' if self.follow_links else ''}{shlex.quote(str(self.root))}"


@dataclass(frozen=True)
class Dataset:
    """Three splits over the same classes.

    Attributes:
        name: short name for people.
        class_names: one per label, in label order.
        train, val, test: the splits.
        image_size: the size in pixels that the dataset asks for; None leaves it to the backbone.
        crop_pct: the share of the canvas that the centre crop keeps; None leaves it to the backbone.
        mirror_safe: whether a mirrored image still shows its class.
        files: where images are files; None: pixels in memory, which are not checked.
        shuffle_buffer: where images lie in shards, among how many training images an epoch's order is random; None
            where it costs nothing to shuffle all.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    image_size: int | None = None
    crop_pct: float | None = None
    mirror_safe: bool = True
    files: Files | None = None
    shuffle_buffer: int | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
