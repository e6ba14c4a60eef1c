"""Real images to check an export on: the few that go with the model, or the first of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tl_experiments.data.transforms import draw
from tl_experiments.inference.description import Description
from tl_experiments.inference.drawing import decode_listed
from tl_experiments.inference.image_list import Listed, list_images
from tl_experiments.runtime.errors import SettingError

MOST = 64
MOST_RESIZED = 2
SHAPES = ((2.0, 1.5), (0.5, 0.7), (1.0, 1.3))  # width and height, in sides of the canvas: larger, smaller, taller


@dataclass(frozen=True)
class Samples:
    """N images, and some of them in other sizes, of which canvases alone are held.

    Attributes:
        num_images: N.
        listed: where each of the N + M is, of which the last M are images of before, resized.
        sizes: (width, height) of each.
        canvases: uint8 (N + M, 3, C, C), drawn by Pillow.
    """

    num_images: int
    listed: Sequence[Listed]
    sizes: Sequence[tuple[int, int]]
    canvases: torch.Tensor = field(repr=False)

    def image(self, index: int) -> Image.Image:
        """Decode one again: all of them might fill memory."""
        return decode_listed(self.listed[index]).resize(self.sizes[index])


def read_samples(description: Description, folder: Path, *, source: str | None) -> Samples:
    """Read the first images of a source, or those of the model, which are of the canvas's size; so some are resized.

    Args:
        description: of the model.
        folder: of the model.
        source: as `list_images` takes it; None takes the model's.

    Raises:
        DataError: there is none at the source, or one cannot be used.
        SettingError: the model has none.
    """
    own = (Listed(name, str(folder / name)) for name in description.examples)
    listed = list(own if source is None else islice(list_images(source), MOST))
    if not listed:
        raise SettingError(
            f"{folder}: no images go with this model, and an export is checked on real ones: expected --images SOURCE"
        )
    canvas = description.canvas
    whole = ((one, decode_listed(one)) for one in listed)
    resized = (
        (one, decode_listed(one).resize((round(canvas.size * width), round(canvas.size * height))))
        for one in listed[:MOST_RESIZED]
        for width, height in SHAPES
    )
    drawn = ((one, image.size, draw(image, canvas)) for one, image in chain(whole, resized))
    places, sizes, canvases = zip(*drawn, strict=True)
    return Samples(len(listed), places, sizes, torch.from_numpy(np.stack(canvases)))
