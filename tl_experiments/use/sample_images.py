"""Real images to check an export on: the few that go with the model, or the first of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tl_experiments.data.transforms import draw
from tl_experiments.inference.description import Description
from tl_experiments.inference.drawing import decode_listed
from tl_experiments.inference.image_list import Listed, list_images
from tl_experiments.runtime.errors import SettingError

MOST = 64


@dataclass(frozen=True)
class Samples:
    """N images, of which canvases alone are held.

    Attributes:
        listed: where they are.
        sizes: (width, height) of each.
        canvases: uint8 (N, 3, C, C), drawn by Pillow.
    """

    listed: Sequence[Listed]
    sizes: Sequence[tuple[int, int]]
    canvases: torch.Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.listed)

    def image(self, index: int) -> np.ndarray:
        """Decode one again, uint8 (H, W, 3): all of them might fill memory."""
        return np.array(decode_listed(self.listed[index]))


def read_samples(description: Description, folder: Path, *, source: str | None) -> Samples:
    """Read the first images of a source, or those of the model.

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
    images = (decode_listed(one) for one in listed)
    sizes, canvases = zip(*((image.size, draw(image, description.canvas)) for image in images), strict=True)
    return Samples(listed, sizes, torch.from_numpy(np.stack(canvases)))
