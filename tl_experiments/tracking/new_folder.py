"""The folder that a command writes its files into."""

import secrets
from datetime import datetime
from pathlib import Path

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.typed_path import typed_path


def new_folder(output: Path | None, *, parent: str) -> Path:
    """Return the absolute path of a folder that is empty or not there; it is not made.

    Args:
        output: that was asked for; None is a new one, named after the time.
        parent: of that one.

    Raises:
        SettingError: what was asked for is no folder, or holds something.
    """
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
    folder = typed_path(output or Path(parent) / name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"--output {folder}: is there already; expected a new folder, or an empty one")
    return folder
