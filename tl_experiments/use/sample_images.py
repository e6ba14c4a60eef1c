"""Real images to check an export on: the few that go with the model, or the first of the user's own."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tl_experiments.data.decoding import EXTENSIONS, decode
from tl_experiments.data.image_files import read_image_file
from tl_experiments.data.transforms import draw
from tl_experiments.inference.description import Description
from tl_experiments.runtime.errors import SettingError

MOST = 64


@dataclass(frozen=True)
class Samples:
    """Images in two forms.

    Attributes:
        images: uint8 (H, W, 3) each, as decoded.
        canvases: uint8 (N, 3, C, C), drawn by Pillow.
    """

    images: Sequence[np.ndarray]
    canvases: torch.Tensor


def read_samples(description: Description, folder: Path, *, sources: Sequence[Path]) -> Samples:
    """Read the first images of the user's files and folders, or those of the model.

    Args:
        description: of the model.
        folder: of the model.
        sources: the user's; empty takes the model's.

    Raises:
        ImageError: one cannot be used.
        SettingError: there is none.
    """
    own = [folder / name for name in description.examples]
    paths = list(islice(_files(sources), MOST)) if sources else own
    if not paths:
        where = f"--images {sources[0]}: no image there" if sources else f"{folder}: no images go with this model"
        raise SettingError(f"{where}; the export is checked on real ones: expected --images FILE_OR_FOLDER ...")
    images = [decode(read_image_file(path, within=None), name=str(path)) for path in paths]
    canvases = np.stack([draw(image, description.canvas) for image in images])
    return Samples([np.array(image) for image in images], torch.from_numpy(canvases))


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    """Yield files as they are named, and the images of folders in the order of their names."""
    for source in sources:
        if not source.is_dir():
            yield source
        for folder, folders, names in os.walk(source):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS))
