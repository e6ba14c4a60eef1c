"""The parts of an output that is being made: each is published when it is whole, so that a killed command goes on.

They lie in a hidden folder beside the output, with what identifies the job. A part's name tells its place, its rows,
how many of them are errors, and a digest of the names of its images.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from tl_experiments.inference.image_list import Listed
from tl_experiments.inference.prediction_formats import Format
from tl_experiments.inference.prediction_table import ERROR, FILENAME, writable
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.files import (
    disk_fault,
    make_folder,
    publish,
    publish_text,
    remove_folder,
    unfinished,
)
from tl_experiments.runtime.fingerprint import fingerprint

_LOCK, _JOB = ".lock", "job"
_LOCK_SECONDS = 5  # helpers of a killed command hold the lock until they end
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-([0-9a-f]{64})")


@dataclass(frozen=True)
class Part:
    """A whole part.

    Attributes:
        number: its place, from 0.
        rows: how many there are.
        bad: how many of them are errors.
        digest: of the names of its images.
        path: of the file.
    """

    number: int
    rows: int
    bad: int
    digest: str
    path: Path


class Parts:
    """The parts of one output; made by `claimed`, so that no other process writes them."""

    def __init__(self, output: Path, *, form: Format) -> None:
        """Look at nothing yet."""
        self._output, self._form, self._folder = output, form, parts_folder(output)
        self.whole: list[Part] = []
        self.dropped, self.reason = 0, ""  # finished images that are done again, and why

    @property
    def num_rows(self) -> int:
        return sum(part.rows for part in self.whole)

    @property
    def num_bad(self) -> int:
        return sum(part.bad for part in self.whole)

    def take_up(self, items: Iterator[Listed], *, job: Mapping[str, Any]) -> Iterator[Listed]:
        """Keep the parts that an earlier command of the same job has finished, as far as they are of these images.

        Args:
            items: of the whole job.
            job: plain values that identify it, whatever its images.

        Returns:
            The items that are left.
        """
        with self._told():
            found, same = self.found(), self._is_of(job)
        self.reason = "" if same else "the model, the options, the device or the versions are others"
        for part in found if same else ():
            if 2 * part.bad > part.rows:  # as on a disk that was away
                self.reason = "most of a part could not be read"
                break
            taken = list(islice(items, part.rows))
            if part.number != len(self.whole) or part.digest != _digest(writable(item.name) for item in taken):
                items, self.reason = chain(taken, items), "the images are others"
                break
            self.whole.append(part)
        self.dropped = sum(part.rows for part in found) - self.num_rows
        kept = {_LOCK, _JOB, *(part.path.name for part in self.whole)}
        with self._told():
            for path in self._folder.iterdir():
                if path.name not in kept:
                    path.unlink()
            publish_text(self._folder / _JOB, fingerprint(job))
        return items

    def add(self, table: pa.Table) -> None:
        """Publish the next part.

        Raises:
            RunFailed: it cannot be written.
        """
        digest = _digest(table[FILENAME].to_pylist())
        number, bad = len(self.whole), table.num_rows - table[ERROR].null_count
        path = self._folder / f"{number:06}-{table.num_rows}-{bad}-{digest}"
        with self._told(), unfinished(self._folder) as file:
            self._form.write_part(table, file)
            publish(file, path)
        self.whole.append(Part(number, table.num_rows, bad, digest, path))

    def join(self, schema: pa.Schema) -> None:
        """Publish the output, and remove its parts.

        Raises:
            RunFailed: it cannot be written.
        """
        with self._told():
            with unfinished(self._output.parent) as file:
                self._form.join([part.path for part in self.whole], file, schema=schema)
                publish(file, self._output)
            remove_folder(self._folder)

    def _is_of(self, job: Mapping[str, Any]) -> bool:
        path = self._folder / _JOB
        return path.is_file() and path.read_text(encoding="utf-8") == fingerprint(job)

    def found(self) -> list[Part]:
        """Return what lies there, by number, of whatever job."""
        if not self._folder.is_dir():
            return []
        matched = [(path, _NAME.fullmatch(path.name)) for path in sorted(self._folder.iterdir())]
        found = [Part(int(m[1]), int(m[2]), int(m[3]), m[4], path) for path, m in matched if m is not None]
        return sorted(found, key=lambda part: part.number)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self._output}: cannot be written ({disk_fault(error)}); what is finished is kept in {self._folder}, "
                "and the same command goes on from there"
            ) from error


@contextmanager
def claimed(output: Path, *, form: Format) -> Iterator[Parts]:
    """Keep other processes from writing the same output; one that dies gives it up.

    Nothing is left behind where no part was finished.

    Raises:
        SettingError: another process writes it.
        RunFailed: its folder cannot be made, or is another user's.
    """
    folder = parts_folder(output)
    try:
        lock = _lock_in(folder)
    except Timeout:
        raise SettingError(f"{output}: another process is writing it; wait for it, or choose another path") from None
    except OSError as error:
        raise RunFailed(f"{output}: cannot be written ({disk_fault(error)})") from error
    parts = Parts(output, form=form)
    try:
        yield parts
    finally:
        with suppress(OSError):  # it would hide what went wrong before
            if not parts.found():
                remove_folder(folder)
        lock.release()


def _lock_in(folder: Path) -> FileLock:
    """Make a folder and take its lock; raises Timeout or OSError.

    Who had the lock may have finished, and removed the folder with it, while it was waited for.
    """
    while True:
        make_folder(folder)
        lock = FileLock(folder / _LOCK, timeout=_LOCK_SECONDS)
        with suppress(FileNotFoundError):
            lock.acquire()
            if (folder / _LOCK).exists():
                return lock
        lock.release()


def parts_folder(output: Path) -> Path:
    """Return where the parts of an output lie."""
    return output.parent / f".{output.name}.parts"


def _digest(names: Iterable[str]) -> str:
    """Digest names in order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0".encode())
    return digest.hexdigest()
