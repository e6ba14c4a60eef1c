"""From a path as somebody typed it to one that the system takes."""

import re
from pathlib import Path

from tl_experiments.runtime.errors import SettingError


def typed_path(typed: str | Path) -> Path:
    """Return an absolute path with `~` and `~user` replaced; nothing need be there.

    Raises:
        SettingError: nothing can be there: no such user, too long a name, a NUL, or a closed folder.
    """
    try:
        path = Path(typed).expanduser().absolute()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = str(typed) if len(str(typed)) <= 100 else f"{str(typed)[:100]}..."
        raise SettingError(f"{shown!r}: cannot be used as a path ({reason}); expected one that can be read") from error
    return path


def is_url(typed: str) -> bool:
    """Whether it is the address of something that is fetched."""
    return re.match("https?://", typed, re.IGNORECASE) is not None


def is_pattern(typed: str) -> bool:
    """Whether it names many places, as `train-{0000..0015}.tar` does."""
    return re.search(r"\{[^{}]*(,|\.\.)[^{}]*\}", typed) is not None


def lasting_place(typed: str) -> str:
    """Return a place so that it is the same from any folder: an absolute path, or a URL as it is."""
    return typed if is_url(typed) else str(Path(typed).expanduser().absolute())
