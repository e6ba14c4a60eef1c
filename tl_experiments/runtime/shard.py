"""A shard: rows of a cache entry in one file, and a manifest that names and checks them. Nothing heavy is imported."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.runtime.files import DamageError, publish, unfinished

READ_BYTES = 256_000  # at once, of rows that are smaller


@dataclass(frozen=True)
class Shard:
    """Some rows of an entry, as its manifest describes them.

    Attributes:
        manifest: its path; the payload lies beside it.
        row_bytes: size of one row.
        digests: of what the rows were computed from, in the order of the payload.
        sha256: of the bytes of every row.
    """

    manifest: Path
    row_bytes: int
    digests: tuple[str, ...]
    sha256: tuple[str, ...]

    @classmethod
    def load(cls, manifest: Path) -> "Shard":
        """Read a manifest.

        Raises:
            DamageError: it is not what was written, or belongs to another entry.
            FileNotFoundError: somebody has removed it.
            OSError: it cannot be read now, which says nothing of what it holds.
        """
        text = manifest.read_bytes()
        if hashlib.sha256(text).hexdigest() != manifest.stem:
            raise DamageError("its manifest does not match its checksum")
        try:
            body = json.loads(text)
            shard = cls(manifest, int(body["row_bytes"]), tuple(body["digests"]), tuple(body["sha256"]))
            key = body["key"]
            if not all(isinstance(text, str) for text in (*shard.digests, *shard.sha256)):
                raise TypeError("digests are text")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise DamageError("its manifest is not one of a shard") from None
        its_own = key == manifest.parent.name and len(shard.digests) == len(shard.sha256)
        if not its_own or not 0 < shard.row_bytes <= sys.maxsize:
            raise DamageError("its manifest belongs to something else")
        return shard

    @property
    def payload(self) -> Path:
        return self.manifest.with_suffix(".rows")

    def read(self, wanted: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield the wanted rows with their indices; None for a row whose bytes are not those that were written.

        Raises:
            OSError: the payload cannot be read now, which says nothing of what it holds.
        """
        try:
            file = self.payload.open("rb", buffering=READ_BYTES)
        except FileNotFoundError:
            yield from ((index, None) for index in wanted)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            for index in wanted:
                if (index + 1) * self.row_bytes > size:  # a manifest may ask for more than there is memory
                    yield index, None
                    continue
                file.seek(index * self.row_bytes)
                row = file.read(self.row_bytes)
                yield index, row if hashlib.sha256(row).hexdigest() == self.sha256[index] else None

    def fault(self, bad: int) -> str | None:
        """Say what is wrong with the payload when `bad` rows of it were; None: nothing.

        Raises:
            OSError: as `read` does.
        """
        expected = len(self.digests) * self.row_bytes
        try:
            size = self.payload.stat().st_size
        except FileNotFoundError:
            return "its payload is missing"
        if size != expected:
            return f"its payload has {size} bytes instead of {expected}"
        return f"{bad} of its {len(self.digests)} rows do not match their checksum" if bad else None


def write_shard(entry: Path, rows: Iterable[memoryview], digests: Sequence[str], *, row_bytes: int) -> None:
    """Publish rows in an entry's folder: payload first, manifest last.

    Raises:
        OSError: it could not be written; nothing is left of it, as far as it can be removed.
    """
    with unfinished(entry) as payload:
        hashes = []
        for row in rows:
            hashes.append(hashlib.sha256(row).hexdigest())
            payload.write(row)
        body = {"key": entry.name, "row_bytes": row_bytes, "digests": list(digests), "sha256": hashes}
        text = json.dumps(body, separators=(",", ":")).encode()
        manifest = entry / f"{hashlib.sha256(text).hexdigest()}.json"
        try:
            publish(payload, manifest.with_suffix(".rows"))
            with unfinished(entry) as file:
                file.write(text)
                publish(file, manifest)
        except OSError:
            _remove(manifest)
            raise


def _remove(manifest: Path) -> None:
    """Remove a shard of which perhaps the payload alone is there: on a full disk it is in the way."""
    for path in (manifest, manifest.with_suffix(".rows")):
        with suppress(OSError):
            path.unlink()
