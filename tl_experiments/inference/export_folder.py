"""The folder of a model by itself, as `tlx` takes it in place of a run."""

import os
import shutil
from pathlib import Path

from tl_experiments.inference.description import FILE, Description
from tl_experiments.inference.saved_model import CARD, WEIGHTS
from tl_experiments.runtime.errors import SettingError


def copy_model(source: Path, folder: Path, *, description: Description) -> None:
    """Copy what belongs to a model: weights, description, card and example images.

    Args:
        source: folder of the model.
        folder: that is being made.
        description: of the model.

    Raises:
        SettingError: something of it is missing, a link or no file.
    """
    card = [CARD] if os.path.lexists(source / CARD) else []  # earlier formats had none
    for name in (WEIGHTS, FILE, *description.examples, *card):
        path = source / name
        if (
            path.is_symlink() or not path.is_file()
        ):  # a link in a folder of others may lead to what is nobody's business
            raise SettingError(f"{path}: is no file of its own; expected one, not a link or a pipe")
        shutil.copyfile(path, folder / name)
