"""Whether what was exported says what the model says, on real images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from tl_experiments.data.transforms import centre_crop
from tl_experiments.inference.export_graph import Loaded
from tl_experiments.inference.image_classifier import ImageClassifier
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.use.sample_images import Samples

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4
# Pixels that end in one half may be rounded otherwise than by Pillow, so that images which are resized in the graph may
# be told a little otherwise.
RESIZED_TOLERANCE = 5e-2  # of probabilities; a fine-tuned network at 64 px that was still unsure differed by 1.2e-2


@dataclass(frozen=True)
class Agreement:
    """How far answers are from the model's.

    Attributes:
        images: that were looked at.
        max_difference: of probabilities, or of logits as a share of the largest.
        tolerance: that it is within.
        top1_agreement: share of images that are given the same class, or whose two likeliest are no further apart for
            the model than the tolerance.
    """

    images: int
    max_difference: float
    tolerance: float
    top1_agreement: float

    def __str__(self) -> str:
        return (
            f"{self.images} images: largest difference {self.max_difference:.1e} (at most {self.tolerance:g}), "
            f"same class for {self.top1_agreement:.1%}"
        )

    @property
    def holds(self) -> bool:
        return self.max_difference <= self.tolerance and self.top1_agreement == 1


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        whole: of images whose pixels the model sees as they are.
        resized: of images of other sizes, resized in the graph instead of by Pillow; None of a graph that cannot.
    """

    whole: Agreement
    resized: Agreement | None

    def as_json(self) -> dict[str, Any]:
        resized = None if self.resized is None else asdict(self.resized)
        return {"batch_sizes": list(BATCHES), **asdict(self.whole), "resized_in_graph": resized}


def check(
    loaded: Loaded,
    network: ImageClassifier,
    samples: Samples,
    *,
    preprocess: bool,
    on_progress: Callable[[int, int], None],
) -> Check:
    """Compare the answers to images, in batches of 1, 2 and 5, with those of the float32 model on the CPU.

    Args:
        loaded: what was exported; it gives probabilities of images if `preprocess`, else logits of normalised crops.
        network: the model.
        samples: images.
        preprocess: which.
        on_progress: told (done, total) of the batches.

    Raises:
        RunFailed: they differ by more than rounding.
    """
    inputs, expected = _expected(network, samples.canvases, preprocess=preprocess)
    places = _places(samples.num_images)
    others = _of_other_sizes(samples) if preprocess else []
    batches = chain((inputs[part] for part in places), (np.array(samples.image(index))[None] for index in others))
    answers = np.concatenate(list(_answers(loaded, batches, len(places) + len(others), on_progress)))
    order, scale = np.concatenate(places), 1.0 if preprocess else float(np.abs(expected).max())
    whole, resized = np.split(answers, [len(order)])
    found = Check(
        _agreement(whole / scale, expected[order] / scale, images=samples.num_images, tolerance=TOLERANCE),
        _agreement(resized, expected[others], images=len(others), tolerance=RESIZED_TOLERANCE) if others else None,
    )
    for agreement in (found.whole, found.resized):
        if agreement is not None and not agreement.holds:
            raise RunFailed(f"what was exported differs from the model on {agreement}; nothing was written")
    return found


@torch.inference_mode()
def _expected(network: ImageClassifier, canvases: torch.Tensor, *, preprocess: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what an export is given, and what the model says of it."""
    if preprocess:
        inputs = canvases.permute(0, 2, 3, 1).contiguous()
        said = [network(part) for part in canvases.split(max(BATCHES))]
    else:
        inputs = network.normalise(centre_crop(canvases, network.crop))
        said = [network.model(part) for part in inputs.split(max(BATCHES))]
    return inputs.numpy(), torch.cat(said).numpy()


def _places(count: int) -> list[np.ndarray]:
    """Return which images come in each batch: some in the smaller ones, then all; few fill one more than once."""
    places, most = np.arange(max(count, max(BATCHES))) % count, max(BATCHES)
    return [*(places[:size] for size in BATCHES), *np.split(places, range(most, len(places), most))]


def _answers(
    loaded: Loaded, batches: Iterable[np.ndarray], total: int, on_progress: Callable[[int, int], None]
) -> Iterator[np.ndarray]:
    for done, batch in enumerate(batches):
        on_progress(done, total)
        yield loaded(batch)
    on_progress(total, total)


def _of_other_sizes(samples: Samples) -> list[int]:
    side = samples.canvases.shape[-1]
    return [index for index, size in enumerate(samples.sizes) if size != (side, side)]


def _agreement(answers: np.ndarray, expected: np.ndarray, *, images: int, tolerance: float) -> Agreement:
    top2 = np.sort(expected, axis=1)[:, -2:]
    close = top2[:, -1] - top2[:, 0] <= tolerance
    return Agreement(
        images=images,
        max_difference=float(np.abs(answers - expected).max()),
        tolerance=tolerance,
        top1_agreement=float((close | (answers.argmax(axis=1) == expected.argmax(axis=1))).mean()),
    )
