"""Any number of images through a network: workers draw the next ones while the device computes."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic

import torch

from tl_experiments.data.decoding import ImageError
from tl_experiments.data.loading import load
from tl_experiments.data.transforms import to_device
from tl_experiments.inference.drawing import DrawItems, Drawn, Item
from tl_experiments.inference.image_classifier import Answer, Classifier

CHUNK = 32  # images that a worker draws at a time: what waits for a GPU takes little memory, and comes evenly


@dataclass(frozen=True)
class Answered(Generic[Item]):
    """What the network says of a batch of images.

    Attributes:
        items: N, in their order.
        faults: for each what is wrong with it, None where nothing is.
        values: float32 (S, K) on the CPU, of the S sound ones in the same order.
    """

    items: Sequence[Item]
    faults: Sequence[ImageError | None]
    values: torch.Tensor = field(repr=False)


def classify(
    classifier: Classifier, draw: DrawItems[Item], items: Iterable[Item], *, workers: int, logits: bool = False
) -> Generator[Answered[Item], None, None]:
    """Yield the probabilities of images in batches of the classifier's size, bad images counted; the last is smaller.

    A GPU is given the next batch before the answers to the last one are waited for.

    Args:
        classifier: on its device.
        draw: items → canvases; picklable, and so are the items.
        items: taken as they are wanted.
        workers: processes that draw; 0 does so in this one.
        logits: yield logits instead of probabilities.
    """
    asked: tuple[Drawn[Item], Answer] | None = None
    for batch in _batches(classifier, draw, items, workers=workers):
        earlier, asked = asked, (batch, classifier.ask(batch.canvases, logits=logits))
        if earlier is not None:
            yield _answered(*earlier)
    if asked is not None:
        yield _answered(*asked)


def _answered(batch: Drawn[Item], answer: Answer) -> Answered[Item]:
    return Answered(batch.items, batch.faults, answer.wait())


def _batches(
    classifier: Classifier, draw: DrawItems[Item], items: Iterable[Item], *, workers: int
) -> Iterator[Drawn[Item]]:
    """Put what the workers draw together on the device."""
    device, chunks, count = classifier.compute.device, list[Drawn[Item]](), 0
    work = _cut(items, batch_size=classifier.batch_size)
    for drawn in load(draw, work, workers=workers, pin=device.type == "cuda"):
        chunks.append(Drawn(drawn.items, drawn.faults, to_device(drawn.canvases, device)))
        count += len(drawn.items)
        if count == classifier.batch_size:
            yield _joined(chunks)
            chunks, count = [], 0
    if chunks:
        yield _joined(chunks)


def _cut(items: Iterable[Item], *, batch_size: int) -> Iterator[list[Item]]:
    """Cut batches into chunks, so that no chunk has images of two batches."""
    rest = iter(items)
    while batch := list(islice(rest, batch_size)):
        for start in range(0, len(batch), CHUNK):
            yield batch[start : start + CHUNK]


def _joined(chunks: Sequence[Drawn[Item]]) -> Drawn[Item]:
    return Drawn(
        [item for drawn in chunks for item in drawn.items],
        [fault for drawn in chunks for fault in drawn.faults],
        torch.cat([drawn.canvases for drawn in chunks]),
    )
