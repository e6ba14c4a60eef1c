"""Shards with the index that `tlx pack` wrote beside them: in a folder, or on the net."""

from pathlib import Path

from tl_experiments.data.image_files import printable
from tl_experiments.data.tar_download import fetched_index
from tl_experiments.data.tar_index import INDEX, TarIndex
from tl_experiments.data.tar_places import TAR
from tl_experiments.data.tar_source import TarSource
from tl_experiments.data.watch import Watch
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.typed_path import is_pattern, is_url, typed_path

FETCH_AGAIN = "start it again; if it says so again, have its shard fetched anew (tlx cache prune --all)"


def packed_shards(root: str, *, watch: Watch) -> TarSource | None:
    """Return the images of shards that have an index beside them; None where they have none.

    Args:
        root: a folder or a URL.
        watch: told while an index is fetched.

    Raises:
        DataError: the index or a shard is damaged or cannot be had, or they do not belong together.
    """
    if is_pattern(root) or root.endswith(TAR):
        return None
    if is_url(root):
        base = root.rstrip("/")
        index, digest = fetched_index(f"{base}/{INDEX}", watch=watch)
        _require_beside(index, f"{base}/{INDEX}")
        return TarSource(index, tuple(f"{base}/{shard.place}" for shard in index.shards), FETCH_AGAIN, digest)
    folder = typed_path(root)
    if not (folder / INDEX).is_file():
        return None
    index = TarIndex(folder / INDEX)
    _require_beside(index, folder / INDEX)
    for shard in index.shards:
        _require_whole(folder / shard.place, shard.bytes)
    return TarSource(index, tuple(str(folder / shard.place) for shard in index.shards), "copy or pack it again")


def _require_beside(index: TarIndex, path: Path | str) -> None:
    """See that an index, which may be a stranger's, names tar files beside it and nothing else."""
    for shard in index.shards:
        place = shard.place
        if not place.endswith(TAR) or not place.isprintable() or Path(place).name != place:
            raise DataError(f"{printable(path)}: leads elsewhere, to {printable(place)}; make it again")


def _require_whole(path: Path, size: int) -> None:
    """See that a shard is as large as its index says; that its images are what they were is seen as they are read."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}), and its index names it") from error
    if found != size:
        raise DataError(
            f"{printable(path)}: has {found:,} bytes, and its index says {size:,}: it was cut off or changed; "
            "copy or pack it again"
        )
