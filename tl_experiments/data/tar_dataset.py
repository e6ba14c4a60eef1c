"""Images in tar files, the shards of WebDataset (extra `webdataset`): for data larger than memory, or far away."""

from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from tl_experiments.data.image_files import printable
from tl_experiments.data.labelled import Division, divided, natural_classes
from tl_experiments.data.loading import load
from tl_experiments.data.source import Dataset, Files, Split
from tl_experiments.data.tar_download import cached_index
from tl_experiments.data.tar_index import INDEX, Records, TarFault, TarIndex, TarShard, current_decoding, write_index
from tl_experiments.data.tar_pack import FETCH_AGAIN, packed_shards
from tl_experiments.data.tar_places import TAR, require_plain, tar_places
from tl_experiments.data.tar_source import TarSource
from tl_experiments.data.tar_walk import Walked, walk
from tl_experiments.data.watch import Watch
from tl_experiments.runtime.cache_folder import GB, LIMIT, cache_limit
from tl_experiments.runtime.cached_file import cached_file
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.files import disk_fault
from tl_experiments.runtime.process import num_cores
from tl_experiments.runtime.typed_path import is_url

_WALKING = 1  # raise it with any change after which the same shards may give another index


def webdataset(
    *,
    root: str,
    shuffle_buffer: int,
    train_size: int | float | None,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    crop_pct: float | None,
    on_bad_image: str,
    watch: Watch,
) -> Dataset:
    """Find the images of shards and split them where they are not; shards without an index are read once to make one.

    Args:
        root: what `tlx pack` wrote, as a folder or a URL; or shards of others, in a folder, or by names or URLs with
            braces: KEY.jpg beside KEY.cls.
        shuffle_buffer: among how many training images, of shards in random order, an epoch's order is random.
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after the splits.
        val_fraction: share of train that becomes val where there is no val, in (0, 1).
        test_fraction: share of all images that becomes test where there is no test, in (0, 1).
        split_seed: of the splits and of `train_size`.
        crop_pct: share of the shorter side that the centre crop keeps; None leaves it to the backbone.
        on_bad_image: error, or skip, which leaves out what cannot be read or decoded.
        watch: told while an index is made.

    Raises:
        DataError: there are no shards, or they are damaged or malformed, or a class is too small to split.
        SettingError: the root is neither a path nor a URL of http or https, or a number is out of range.
    """
    require_plain(root)
    source = packed_shards(root, watch=watch) or _foreign(root, watch=watch)
    index = source.index
    if is_url(root):
        _tell_of_fetching(index, watch=watch)
    splits = {}
    for split in ("train", "val", "test"):
        shards = [number for number, shard in enumerate(index.shards) if shard.split == split]
        if len(records := np.flatnonzero(np.isin(index.shard, shards))):
            splits[split] = Split(split, source, records)
    if "train" not in splits:
        raise DataError(f"dataset.root={printable(root)}: no image is of train; expected some to learn from")
    return divided(
        splits,
        name=printable(PurePosixPath(root.rstrip("/")).name.removesuffix(TAR)),
        class_names=index.class_names,
        division=Division(
            train_size=train_size, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed
        ),
        crop_pct=crop_pct,
        files=Files(None, follow_links=True, on_bad_image=on_bad_image),
        shuffle_buffer=shuffle_buffer,
    )


def _tell_of_fetching(index: TarIndex, *, watch: Watch) -> None:
    needed, limit = sum(shard.bytes for shard in index.shards), cache_limit()
    told = f"shards: {len(index.shards):,} on the net, {needed / GB:.3g} GB in all"
    if needed > limit:
        watch.notice(
            f"{told}, and all caches may take {limit / GB:.3g} GB: "
            f"shards are fetched again in every epoch; raise {LIMIT}"
        )
    else:
        watch.notice(f"{told}; those that the caches lack are fetched when they are read")


def _foreign(root: str, *, watch: Watch) -> TarSource:
    """Return the images of shards without an index, which is made if it was not yet."""
    splits = tar_places(root)
    fields = {
        "index": [[place, split, *_stamp(place)] for place, split in splits.items()],
        "decoding": current_decoding(),
        "walking": _WALKING,
    }

    def make(file: BinaryIO) -> None:
        _index(splits, file, watch=watch)

    try:
        index = cached_index(
            lambda: cached_file(kind="indexes", name=INDEX, fields=fields, make=make, notice=watch.notice)
        )
    except OSError as error:
        raise DataError(f"{printable(root)}: its index cannot be kept ({disk_fault(error)})") from error
    return TarSource(index, tuple(splits), FETCH_AGAIN if is_url(root) else "start it again")


def _stamp(place: str) -> tuple[int, ...]:
    """What tells a file from what it was before; a URL is taken to stay what it is."""
    if is_url(place):
        return ()
    status = Path(place).stat()
    return status.st_size, status.st_mtime_ns


def _index(splits: dict[str, str], file: BinaryIO, *, watch: Watch) -> None:
    """Read all shards and write what they hold."""
    advance = watch.work(f"looking through {len(splits):,} shard{'s' * (len(splits) > 1)}, once")
    shards, found = list[TarShard](), list[Walked]()
    workers = num_cores() if len(splits) > 1 else 0
    for (place, split), walked in zip(splits.items(), load(walk, splits, workers=workers), strict=True):
        shards.append(TarShard(place, split, walked.bytes))
        found.append(walked)
        advance(len(found), len(splits))
    names = {split: [] for split in dict.fromkeys(splits.values())}
    for shard, walked in zip(shards, found, strict=True):
        names[shard.split] += walked.classes
    class_names = natural_classes(names)
    places = {name: at for at, name in enumerate(class_names)}
    faults, before, records = list[TarFault](), 0, list[Records]()
    for walked in found:
        numbers = np.array([places[name] for name in walked.classes], dtype=np.int32)
        records.append(walked.records.relabelled(numbers))
        faults += [TarFault(before + fault.record, fault.kind, fault.reason) for fault in walked.faults]
        before += len(walked.records)
    write_index(file, shards=shards, records=records, class_names=class_names, faults=faults)
