"""What a model is worth on labelled images, whose classes are matched to its own by name."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from tl_experiments.data.bad_images import BadImage
from tl_experiments.data.image_files import printable
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas
from tl_experiments.engine.scores import score
from tl_experiments.inference.drawing import DrawFromSource, DrawItems
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.streaming import classify
from tl_experiments.runtime.errors import DataError, RunFailed
from tl_experiments.use.labelled_images import LabelledImages


@dataclass(frozen=True)
class Matched:
    """The images of a split that a model may know, and the classes that only one side has.

    Attributes:
        split: the images whose class is one of the model's.
        labels: (N,) int64, the place of each one's class in the model.
        unknown: classes that the model does not know → their images, which are left out.
        absent: the model's classes of which there is no image.
    """

    split: Split = field(repr=False)
    labels: np.ndarray = field(repr=False)
    unknown: dict[str, int]
    absent: tuple[str, ...]


def match_classes(images: LabelledImages, class_names: Sequence[str], *, source: str) -> Matched:
    """Find the classes of images among those of a model.

    Raises:
        DataError: none of them is there.
    """
    places, split = {name: place for place, name in enumerate(class_names)}, images.split
    labels = np.array([places.get(name, -1) for name in images.class_names], dtype=np.int64)[split.labels]
    known = labels >= 0
    if not known.any():
        theirs, own = _few(images.class_names), _few(class_names)
        raise DataError(f"{printable(source)}: has classes {theirs}, the model {own}; expected some of the same name")
    seen = set(labels.tolist())
    return Matched(
        Split(split.name, split.source, split.indices[known]),
        labels[known],
        dict(Counter(images.class_names[label] for label in split.labels[~known].tolist())),
        tuple(name for place, name in enumerate(class_names) if place not in seen),
    )


def _few(names: Sequence[str]) -> str:
    return printable(", ".join(names[:3])) + (", ..." if len(names) > 3 else "")


@dataclass(frozen=True)
class SoundImages:
    """The M images that could be used, as their evaluation is drawn from them.

    Attributes:
        names: of the images.
        canvas: what is drawn of each.
        split: the images.
    """

    names: tuple[str, ...] = field(repr=False)
    canvas: Canvas
    split: Split = field(repr=False)

    def batches(self, index_batches: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield uint8 (B, 3, C, C) for each array of positions; raises DataError where an image is gone by now."""
        draw = DrawFromSource(self.split.source, self.canvas)
        for positions in index_batches:
            yield torch.from_numpy(np.stack([draw(index) for index in self.split.indices[positions].tolist()]))


@dataclass(frozen=True)
class LabelledAnswers:
    """What a model says of M images.

    Attributes:
        images: that could be used.
        labels: (M,) int64.
        logits: (M, K) float32.
        bad: the images that could not.
    """

    images: SoundImages
    labels: torch.Tensor = field(repr=False)
    logits: torch.Tensor = field(repr=False)
    bad: tuple[BadImage, ...]

    def metrics(self, *, temperature: float) -> dict[str, float | None]:
        """Return the scores by name; None of a top-5 accuracy where there are no more than five classes."""
        exact = self.logits.double()
        return {
            "acc": (exact.argmax(dim=1) == self.labels).double().mean().item(),
            "loss": F.cross_entropy(exact, self.labels).item(),
            **asdict(score(self.logits, self.labels, temperature=temperature)),
        }


def classify_labelled(
    classifier: Classifier, matched: Matched, *, workers: int, on_progress: Callable[[int, int], None]
) -> LabelledAnswers:
    """Classify labelled images.

    Args:
        classifier: on its device.
        matched: N images.
        workers: processes that decode; 0 does so in this one.
        on_progress: called with (images done, N).

    Raises:
        RunFailed: no image could be used.
    """
    split, canvas = matched.split, classifier.description.canvas
    draw = DrawItems(DrawFromSource(split.source, canvas), canvas)
    sound, bad, logits, done = list[int](), list[BadImage](), list[torch.Tensor](), 0
    indices = split.indices.tolist()
    with closing(classify(classifier, draw, indices, workers=workers, logits=True)) as answers:
        for answered in answers:
            for at, (index, fault) in enumerate(zip(answered.items, answered.faults, strict=True), start=done):
                if fault is None:
                    sound.append(at)
                else:
                    bad.append(BadImage(split.name, split.source.name(index), fault.kind, fault.reason))
            logits.append(answered.values)
            done += len(answered.items)
            on_progress(done, len(split))
    if not sound:
        raise RunFailed(f"none of the {len(split):,} images can be used, such as {bad[0]}")
    kept = Split(split.name, split.source, split.indices[sound])
    names = tuple(split.source.name(index) for index in kept.indices.tolist())
    labels = torch.from_numpy(matched.labels[sound])
    return LabelledAnswers(SoundImages(names, canvas, kept), labels, torch.cat(logits), tuple(bad))
