"""The folder of a model by itself, as `tlx` takes it in place of a run."""

import shutil
from pathlib import Path

from tl_experiments.inference.description import FILE, Description
from tl_experiments.inference.saved_model import CARD, WEIGHTS


def copy_model(source: Path, folder: Path, *, description: Description) -> None:
    """Copy what belongs to a model: weights, description, card and example images.

    Args:
        source: folder of the model.
        folder: that is being made.
        description: of the model.
    """
    for name in (WEIGHTS, FILE, *description.examples):
        shutil.copyfile(source / name, folder / name)
    if (source / CARD).is_file():  # earlier formats had none
        shutil.copyfile(source / CARD, folder / CARD)
