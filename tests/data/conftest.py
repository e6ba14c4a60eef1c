"""Images and datasets that the tests of this room share."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.watching import Watched
from tl_experiments.data import canvases, reading
from tl_experiments.data.source import ArraySource, Split


@pytest.fixture
def watched(make_split: Callable[..., Split]) -> Callable[..., tuple[Split, list[int]]]:
    """The split that `make_split` makes, and a list that grows by every image that is decoded."""

    def watched(num_images: int, **options: int) -> tuple[Split, list[int]]:
        split = make_split(num_images, **options)
        source = Watched(split.source)
        return Split(split.name, source, split.indices), source.decoded

    return watched


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers do at once is less than a test has: a single chunk would not go to them."""
    for module, name in ((reading, "_CHUNK"), (reading, "_CHECK_CHUNK"), (canvases, "_CHUNK")):
        monkeypatch.setattr(module, name, 7)


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., Image.Image]:
    """An RGB image with structure at several scales, as photographs have."""

    def make(width: int, height: int, *, seed: int = 0) -> Image.Image:
        coarse = (max(2, height // 5), max(2, width // 5), 3)
        noise = np.random.default_rng(seed).integers(0, 256, coarse, dtype=np.uint8)
        return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def make_split() -> Callable[..., Split]:
    """A split of `num_images` random RGB images in `num_classes` classes that take turns."""

    def make(num_images: int, *, side: int = 12, num_classes: int = 3) -> Split:
        pixels = np.random.default_rng(0).integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)
        labels = np.arange(num_images, dtype=np.int64) % num_classes
        return Split("train", ArraySource(pixels, labels, "random"), np.arange(num_images))

    return make
