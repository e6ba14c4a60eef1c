"""A disk that takes nothing more, told in one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.files import disk_fault

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@contextmanager
def disk_told() -> Iterator[None]:
    """Turn what a disk refuses inside the block into one line.

    Raises:
        RunFailed: it is full, read-only or broken.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        raise RunFailed(f"{disk_fault(error)}; make room, then go on with the run") from error
