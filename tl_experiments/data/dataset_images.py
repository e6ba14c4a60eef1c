"""The images of all splits of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tl_experiments.data.bad_images import BadImage, skip_notice, skippable
from tl_experiments.data.images import Images, fingerprint, make_images
from tl_experiments.data.reading import Reading, check_split, read_split
from tl_experiments.data.repeats import Place, find_repeats, repeat_notices
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.transforms import Canvas
from tl_experiments.data.watch import Watch
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.share import WHOLE, Share


@dataclass(frozen=True)
class DatasetImages:
    """What training sees of a dataset.

    Attributes:
        train, val, test: the splits, drawn on the same canvas.
        fingerprint: identity of the contents, labels and splits, in hexadecimal.
        skipped: what was left out of the splits, because it cannot be read or decoded.
    """

    train: Images = field(repr=False)
    val: Images = field(repr=False)
    test: Images = field(repr=False)
    fingerprint: str
    skipped: tuple[BadImage, ...] = ()

    @property
    def canvas(self) -> Canvas:
        return self.train.canvas


def load_dataset_images(
    dataset: Dataset,
    *,
    canvas: Canvas,
    workers: int,
    memory_bytes: int,
    store: RowStore | None,
    checks: RowStore | None,
    watch: Watch,
    share: Share = WHOLE,
) -> DatasetImages:
    """Read every image of a dataset once; of files, those that are not known to decode are decoded, to be checked.

    Args:
        dataset: what to read.
        canvas: what to draw of each image.
        workers: processes that read and decode; 0 does so in this one.
        memory_bytes: for the canvases of all splits; train comes first, since it is read most often.
        store: keeps canvases from run to run; None keeps none.
        checks: keeps from run to run which images decode; None keeps nothing.
        watch: told of the work, and of what is left out, occurs twice or is missing.
        share: of each split, which is read; what a split must hold to learn from is asked of all of it alone.

    Raises:
        DataError: images cannot be read or decoded, and are not to be left out or too many.
    """
    splits = [_shared(split, share) for split in (dataset.train, dataset.val, dataset.test)]
    memory_bytes //= share.count  # so that it is the same for all whether canvases fit
    readings = _read(splits, workers=workers, watch=watch)
    if dataset.files is not None:
        readings = [check_split(reading, workers=workers, store=checks, work=watch.work) for reading in readings]
    skipped = skippable(dataset.files, readings, class_names=dataset.class_names, share=share)
    if dataset.files and skipped:
        total = sum(len(reading.split) for reading in readings)
        watch.notice(skip_notice(skipped, total=total, skipped_by=dataset.files.skipped_by))
    loaded: list[Images] = []
    for reading in readings:
        images = make_images(reading, canvas=canvas, workers=workers, memory_bytes=memory_bytes, store=store)
        memory_bytes -= len(images) * canvas.num_bytes if images.fit else 0
        loaded.append(images)
    for line in (*_absent(dataset, loaded), *_repeated(dataset, loaded)) if share == WHOLE else ():
        watch.notice(line)
    train, val, test = loaded
    return DatasetImages(train, val, test, fingerprint(dataset, *loaded), tuple(skipped))


def _shared(split: Split, share: Share) -> Split:
    return Split(split.name, split.source, split.indices[np.array(share.positions(len(split)), dtype=np.int64)])


def _read(splits: Sequence[Split], *, workers: int, watch: Watch) -> list[Reading]:
    """Read all splits, under one title."""
    num_images, before = sum(len(split) for split in splits), 0
    advance = watch.work(f"reading {num_images:,} images")
    readings: list[Reading] = []
    for split in splits:

        def on_progress(read: int, _: int, before: int = before) -> None:
            advance(before + read, num_images)

        readings.append(read_split(split, workers=workers, on_progress=on_progress))
        before += len(split)
    return readings


def _absent(dataset: Dataset, loaded: Sequence[Images]) -> list[str]:
    """Name the classes of which val or test has no image, so that their scores say nothing of them."""
    told = []
    for images in loaded[1:]:
        absent = [dataset.class_names[label] for label in np.setdiff1d(loaded[0].labels, images.labels)]
        if absent:
            names = ", ".join(absent[:3]) + (" ..." if len(absent) > 3 else "")
            told.append(f"warning: {images.split} has no image of {len(absent)} of train's classes: {names}")
    return told


def _repeated(dataset: Dataset, loaded: Sequence[Images]) -> list[str]:
    ends = np.cumsum([len(images) for images in loaded])

    def place(at: int) -> Place:
        number = int(np.searchsorted(ends, at, side="right"))
        images, own = loaded[number], at - int(ends[number])  # from the end
        return Place(images.split, int(images.labels[own]), images.names[own])

    repeats = find_repeats(np.concatenate([images.digests.array() for images in loaded]), place)
    return repeat_notices(repeats, command=dataset.files.scan_command if dataset.files else None)
