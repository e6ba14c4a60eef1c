"""The images of all splits of a dataset, checked and ready for batches."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tl_experiments.data.images import Images, fingerprint, load_images
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import Canvas


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
    work: Callable[[str], Callable[[int, int], None]],
) -> DatasetImages:
    """Decode every image of a dataset once.

    Args:
        dataset: what to read.
        canvas: what to draw of each image.
        workers: processes that decode; 0 decodes in this one.
        memory_bytes: for all splits; train comes first, since it is read most often.
        work: given a title, returns a callback (images done, images).

    Raises:
        DataError: an image cannot be read.
    """
    loaded: list[Images] = []
    for split in (dataset.train, dataset.val, dataset.test):
        images = load_images(
            split,
            canvas=canvas,
            workers=workers,
            memory_bytes=memory_bytes,
            on_progress=work(f"decoding {len(split):,} {split.name} images"),
        )
        memory_bytes -= len(split) * canvas.num_bytes if images.in_memory else 0
        loaded.append(images)
    train, val, test = loaded
    return DatasetImages(train=train, val=val, test=test, fingerprint=fingerprint(dataset, *loaded))
