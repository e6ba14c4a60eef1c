"""Two paths of one file system that take each other's place in one motion, where the system can do that."""

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def exchanged(first: Path, second: Path) -> bool:
    """Exchange two paths; False where the system, or this file system, cannot.

    Raises:
        OSError: it can, and was refused; both are as they were.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old one
        return False
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(second))
