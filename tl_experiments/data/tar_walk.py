"""Looking through a tar file of samples: KEY.jpg beside KEY.cls, as WebDataset has them."""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from tl_experiments.data.decoding import EXTENSIONS, ImageError, check
from tl_experiments.data.digests import BYTES
from tl_experiments.data.image_files import MAX_BYTES, printable
from tl_experiments.data.tar_download import forget_shard, open_shard
from tl_experiments.data.tar_index import Records, TarFault
from tl_experiments.data.tar_library import grouped
from tl_experiments.runtime.errors import DataError

LABEL = "cls"
_IMAGES = frozenset(extension.removeprefix(".") for extension in EXTENSIONS)
_LONGEST_LABEL = 1000  # bytes
_BLOCK = 512  # bytes, in which tar files are written
_OF_THE_ARCHIVE = re.compile(r"__[^/]*__($|/)")  # what WebDataset takes for no sample


@dataclass(frozen=True)
class _Member:
    """Where the bytes of a file in a tar file are."""

    offset: int
    size: int


@dataclass(frozen=True)
class Walked:
    """What a tar file holds.

    Attributes:
        records: whose labels are places in `classes`.
        classes: as the samples name them, in the order in which they come.
        faults: of images that cannot be decoded, by their place among the records.
        bytes: of the file.
    """

    records: Records
    classes: tuple[str, ...]
    faults: tuple[TarFault, ...]
    bytes: int


def walk(place: str) -> Walked:
    """Read a whole tar file and decode each of its images, to see that it can be.

    Args:
        place: its path or URL.

    Raises:
        DataError: it cannot be read, is compressed or cut off, or a sample has no image, no label, or two of them.
    """
    named = printable(place)
    try:
        with os.fdopen(open_shard(place), "rb") as file:
            return _walked(file, place)
    except DataError:
        forget_shard(place)
        raise
    except ValueError as error:  # of the library: its first words tell which file is there twice
        forget_shard(place)
        raise DataError(
            f"{named}: {printable(str(next(iter(error.args), error)).partition(' in tar file')[0])}"
        ) from error
    except OSError as error:
        raise DataError(f"{named}: cannot be read ({error.strerror})") from error


def _walked(file: BinaryIO, place: str) -> Walked:
    named, shard = printable(place), Path(place).name
    spots, labels, digests, names = list[_Member](), list[int](), list[bytes](), list[str]()
    classes, faults, keys = dict[str, int](), list[TarFault](), set[str]()
    for key, sample in grouped(_members(file, named)):
        if key in keys:
            raise DataError(f"{named}: two samples are called {printable(key)}; expected each once")
        keys.add(key)
        suffix, image, label = _image_and_label(sample, f"{named}: sample {printable(key)}")
        content, name = _read(file, image), f"{shard}/{key}.{suffix}"
        try:
            check(content, name=name)
        except ImageError as error:
            faults.append(TarFault(len(spots), error.kind, error.reason))
        labels.append(classes.setdefault(_text(_read(file, label), f"{named}: {printable(key)}.{LABEL}"), len(classes)))
        spots.append(image)
        digests.append(hashlib.sha256(content).digest())
        names.append(name)
    records = Records(
        offset=np.array([spot.offset for spot in spots], dtype=np.int64),
        size=np.array([spot.size for spot in spots], dtype=np.int64),
        label=np.array(labels, dtype=np.int32),
        sha256=np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, BYTES),
        name=pa.array(names, pa.large_string()),
    )
    return Walked(records, tuple(classes), tuple(faults), file.seek(0, 2))


def _members(file: BinaryIO, named: str) -> Iterator[tuple[str, _Member]]:
    """Yield the regular files of an archive; what it says of links, devices and owners is nobody's business."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - it would keep all of them
                if info.isreg() and not info.sparse and not _OF_THE_ARCHIVE.match(info.name):
                    yield info.name, _Member(info.offset_data, info.size)
            file.seek(archive.offset)
            end = file.read(_BLOCK)
    except tarfile.TarError as error:
        raise DataError(
            f"{named}: damaged, cut off or compressed ({printable(str(error))}); expected a whole tar file as it is"
        ) from error
    if len(end) < _BLOCK or any(end):  # which the library takes for the end too
        raise DataError(f"{named}: damaged or cut off; fetch or make it again")


def _image_and_label(sample: Mapping[str, _Member], named: str) -> tuple[str, _Member, _Member]:
    images = sorted(_IMAGES & sample.keys())
    if len(images) != 1:
        there = f"{len(images)} images ({', '.join(images)})" if images else "no image"
        raise DataError(f"{named} has {there}; expected one, as KEY.jpg, and KEY.{LABEL}")
    if LABEL not in sample:
        raise DataError(f"{named} has no label; expected KEY.{LABEL} beside KEY.{images[0]}")
    return images[0], sample[images[0]], sample[LABEL]


def _read(file: BinaryIO, member: _Member) -> bytes:
    file.seek(member.offset)
    return file.read(min(member.size, MAX_BYTES + 1))


def _text(content: bytes, named: str) -> str:
    """Return the name of a class, which often is a number."""
    try:
        text = content[: _LONGEST_LABEL + 1].decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _LONGEST_LABEL:
        raise DataError(f"{named} is no label; expected a number or a name of up to {_LONGEST_LABEL} bytes, in UTF-8")
    return text
