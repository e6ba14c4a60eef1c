"""Launchers that tell of each job as soon as it has ended, so that its end is recorded while others go on."""

from collections.abc import Callable
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class ToldLauncher(Launcher):
    """A launcher whose `on_end` is called with the position of a job and how it ended."""

    on_end: Callable[[int, JobReturn], None] | None = None


class JobLog:
    """What a job prints, read as it grows; what an earlier attempt has left there is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._read = self._size  # bytes that were shown, now or before

    @property
    def has_grown(self) -> bool:
        return self._size > self._start

    def new_lines(self, *, ended: bool) -> list[str]:
        """Return the whole lines since the last call; of a job that has `ended`, the rest too."""
        if self._size == self._read:
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        end = len(text) if ended else text.rfind(b"\n") + 1
        self._read += end
        return text[:end].decode(errors="replace").splitlines()

    @property
    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0
