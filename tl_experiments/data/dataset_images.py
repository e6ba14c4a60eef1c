"""The images of all splits of a dataset."""

from dataclasses import dataclass, field

from tl_experiments.data.images import Images, fingerprint, load_images
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import Canvas
from tl_experiments.data.watch import Work
from tl_experiments.runtime.row_store import RowStore


@dataclass(frozen=True)
class DatasetImages:
    """What training sees of a dataset.

    Attributes:
        train, val, test: the splits, drawn on the same canvas.
        fingerprint: identity of the contents, labels and splits, in hexadecimal.
    """

    train: Images = field(repr=False)
    val: Images = field(repr=False)
    test: Images = field(repr=False)
    fingerprint: str

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
    work: Work,
) -> DatasetImages:
    """Read every image of a dataset once; none is decoded.

    Args:
        dataset: what to read.
        canvas: what to draw of each image.
        workers: processes that read and decode; 0 does so in this one.
        memory_bytes: for the canvases of all splits; train comes first, since it is read most often.
        store: keeps canvases from run to run; None keeps none.
        work: given a title, returns a callback (images done, images).

    Raises:
        DataError: an image cannot be read, or does not begin like one.
    """
    splits = (dataset.train, dataset.val, dataset.test)
    num_images, done = sum(len(split) for split in splits), 0
    advance = work(f"reading {num_images:,} images")
    loaded: list[Images] = []
    for split in splits:
        images = load_images(
            split,
            canvas=canvas,
            workers=workers,
            memory_bytes=memory_bytes,
            store=store,
            on_progress=lambda read, _, before=done: advance(before + read, num_images),
        )
        done += len(split)
        memory_bytes -= len(split) * canvas.num_bytes if images.fit else 0
        loaded.append(images)
    train, val, test = loaded
    return DatasetImages(train=train, val=val, test=test, fingerprint=fingerprint(dataset, *loaded))
