"""From a path as somebody typed it to one that the system takes."""

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
