"""From a folder or a table of images to shards: each a random sample of all classes, read from one end to the other."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_experiments.data.bad_images import BadImage, keep_list, skippable
from tl_experiments.data.canvases import cut
from tl_experiments.data.decoding import ImageError, check, image_suffix
from tl_experiments.data.digests import BYTES, Digests
from tl_experiments.data.hashing import permutation
from tl_experiments.data.image_files import printable
from tl_experiments.data.loading import load
from tl_experiments.data.own_images import OwnImages, list_images, resolved_place
from tl_experiments.data.reading import Reading
from tl_experiments.data.source import Files, Split
from tl_experiments.data.tar_index import INDEX, Records, TarShard, write_index
from tl_experiments.data.tar_places import TAR
from tl_experiments.data.tar_writer import TarWriter
from tl_experiments.data.watch import Watch
from tl_experiments.runtime.errors import DataError, SettingError
from tl_experiments.runtime.files import published_folder

_CHUNK = 32  # images that are read between two reports of progress


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images are packed.

    Attributes:
        num_shards: of train; the other splits get as many as make theirs as large.
        seed: of the order in which images lie in the shards.
        follow_links: out of the root too.
        skip_bad: leave out what cannot be read or decoded.
        workers: processes that read; 0 does so in this one.
    """

    num_shards: int
    seed: int
    follow_links: bool
    skip_bad: bool
    workers: int


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        num_images: split → images.
        num_shards: split → shards.
        skipped: what was left out.
    """

    num_images: dict[str, int]
    num_shards: dict[str, int]
    skipped: tuple[BadImage, ...]


def pack(root: str, output: Path, packing: Packing, *, watch: Watch) -> Packed:
    """Read every image once and write it into a shard, with an index beside them; all appears at once, or nothing does.

    Args:
        root: a folder as of dataset=image_folder, or a table as of dataset=csv or parquet.
        output: the folder that is made.
        packing: how.
        watch: told how far it is.

    Raises:
        DataError: the root is missing or malformed, or images cannot be used and are not to be left out.
        SettingError: the output is there, or lies in the root; or there are fewer images than shards.
        OSError: the output cannot be written.
    """
    place = resolved_place(root)
    _require_new(output, place)
    found = list_images(place, follow_links=packing.follow_links)
    files = Files(
        place,
        follow_links=packing.follow_links,
        on_bad_image="skip" if packing.skip_bad else "error",
        skipped_by="--skip-bad",
    )
    if found.problems:
        first = found.problems[0]
        raise DataError(f"{printable(place)}/{first.path}: {first.reason} ({files.scan_command} lists all)")
    with published_folder(output) as folder:
        return _pack(found, folder, packing, files=files, watch=watch)


def _require_new(output: Path, place: Path) -> None:
    if output.exists() or output.is_symlink():
        raise SettingError(f"--output {printable(output)}: is there already; name another, or remove it")
    if output.resolve().is_relative_to(place):
        raise SettingError(f"--output {printable(output)}: lies in the folder that is packed; name one outside of it")


def _pack(found: OwnImages, folder: Path, packing: Packing, *, files: Files, watch: Watch) -> Packed:
    plan = shards_of(found.splits, num_shards=packing.num_shards, seed=packing.seed)
    total = sum(len(split) for split in found.splits.values())
    count = sum(map(len, plan.values()))
    advance, before = watch.work(f"packing {total:,} images into {count:,} shard{'s' * (count > 1)}"), 0
    shards, records, readings = list[TarShard](), list[Records](), list[Reading]()
    for name, parts in plan.items():

        def on_progress(done: int, before: int = before) -> None:
            advance(before + done, total)

        writer = _SplitWriter(found.splits[name], folder, workers=packing.workers, on_progress=on_progress)
        for shard, written in writer.write(parts):
            shards.append(shard)
            records.append(written)
        readings.append(writer.reading())
        before += len(found.splits[name])
    skipped = skippable(files, readings, class_names=found.class_names)
    with (folder / INDEX).open("xb") as file:
        write_index(file, shards=shards, records=records, class_names=found.class_names)
    keep_list(skipped, folder)
    return Packed(
        num_images={reading.split.name: len(reading.split) - len(reading.faults) for reading in readings},
        num_shards={name: len(parts) for name, parts in plan.items()},
        skipped=tuple(skipped),
    )


def shards_of(splits: Mapping[str, Split], *, num_shards: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Return for each split the positions that lie in each of its shards, in random order.

    Args:
        splits: by name; train among them.
        num_shards: of train.
        seed: of the order.

    Raises:
        SettingError: there are no shards, or fewer images than shards.
    """
    num_train = len(splits["train"])
    if not 1 <= num_shards <= num_train:
        raise SettingError(f"--shards {num_shards}: expected 1 to {num_train:,}, the images of train")
    plan = {}
    for name in ("train", "val", "test"):
        if name in splits:
            order = permutation(len(splits[name]), seed=seed, stream=f"pack/{name}")
            plan[name] = np.array_split(order, max(1, round(num_shards * len(order) / num_train)))
    return plan


@dataclass(frozen=True)
class _ReadImages:
    """Positions → content, digest in hexadecimal and suffix of each image, or what is wrong with it."""

    split: Split

    def __call__(self, positions: np.ndarray) -> list[tuple[bytes, str, str] | ImageError]:
        return [self._read(int(index)) for index in self.split.indices[positions]]

    def _read(self, index: int) -> tuple[bytes, str, str] | ImageError:
        source = self.split.source
        try:
            content = source.content(index)
            check(content, name=source.name(index))
        except ImageError as error:
            return error
        return content, hashlib.sha256(content).hexdigest(), image_suffix(content)


class _SplitWriter:
    """Writes the shards of a split; what cannot be used is noted and not written."""

    def __init__(self, split: Split, folder: Path, *, workers: int, on_progress: Callable[[int], None]) -> None:
        """Write nothing yet."""
        self._split, self._folder, self._workers, self._on_progress = split, folder, workers, on_progress
        self._faults = dict[int, ImageError]()

    def write(self, parts: Sequence[np.ndarray]) -> Iterator[tuple[TarShard, Records]]:
        """Yield each shard when it is written, and what lies in it."""
        chunks = [cut(part, _CHUNK) for part in parts]
        contents = load(_ReadImages(self._split), [chunk for part in chunks for chunk in part], workers=self._workers)
        digits, done = len(str(len(self._split))), 0
        for number, part in enumerate(chunks):
            path = self._folder / f"{self._split.name}-{number:0{max(4, len(str(len(parts))))}d}{TAR}"
            with TarWriter(path) as writer:
                for positions in part:
                    for position, read in zip(positions.tolist(), next(contents), strict=True):
                        self._add(writer, position, read, key=f"{done:0{digits}d}")
                        done += 1
                    self._on_progress(done)
            yield TarShard(path.name, self._split.name, path.stat().st_size), writer.records()

    def _add(self, writer: TarWriter, position: int, read: tuple[bytes, str, str] | ImageError, *, key: str) -> None:
        if isinstance(read, ImageError):
            self._faults[position] = read
            return
        content, sha256, suffix = read
        index = int(self._split.indices[position])
        label, name = int(self._split.source.labels[index]), self._split.source.name(index)
        writer.add(key, content, suffix=suffix, label=label, sha256=sha256, name=name)

    def reading(self) -> Reading:
        """Return what was found wrong; nobody asks for the digests any more."""
        unasked = Digests(np.broadcast_to(np.zeros(BYTES, np.uint8), (len(self._split), BYTES)))
        return Reading(self._split, unasked, dict(sorted(self._faults.items())), checked=True)
