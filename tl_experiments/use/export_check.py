"""Whether what was exported says what the model says, on real images."""

from dataclasses import asdict, dataclass
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
RESIZED_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Agreement:
    """How far answers are from the model's.

    Attributes:
        images: that were looked at.
        max_difference: of probabilities, or of logits as a share of the largest.
        tolerance: that it is within.
        top1_agreement: share of images that are given the same class.
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
        resized: of images of other sizes, resized in the graph instead of by Pillow; None where there are none.
    """

    whole: Agreement
    resized: Agreement | None

    def as_json(self) -> dict[str, Any]:
        resized = None if self.resized is None else asdict(self.resized)
        return {"batch_sizes": list(BATCHES), **asdict(self.whole), "resized_in_graph": resized}


def check(loaded: Loaded, network: ImageClassifier, samples: Samples, *, preprocess: bool) -> Check:
    """Compare the answers to images, in batches of 1, 2 and 5, with those of the float32 model on the CPU.

    Args:
        loaded: what was exported; it gives probabilities of images if `preprocess`, else logits of normalised crops.
        network: the model.
        samples: images.
        preprocess: which.

    Raises:
        RunFailed: they differ by more than rounding.
    """
    with torch.inference_mode():
        if preprocess:
            inputs, expected = samples.canvases.permute(0, 2, 3, 1).contiguous(), network(samples.canvases)
        else:
            inputs = network.normalise(centre_crop(samples.canvases, network.crop))
            expected = network.model(inputs)
    wanted = expected.numpy()
    scale = 1.0 if preprocess else float(np.abs(wanted).max())
    found = Check(
        whole=_in_batches(loaded, inputs.numpy(), wanted, scale=scale),
        resized=_of_other_sizes(loaded, samples, wanted) if preprocess else None,
    )
    for agreement in (found.whole, found.resized):
        if agreement is not None and not agreement.holds:
            raise RunFailed(f"what was exported differs from the model on {agreement}; nothing was written")
    return found


def _in_batches(loaded: Loaded, inputs: np.ndarray, wanted: np.ndarray, *, scale: float) -> Agreement:
    places = np.arange(max(len(inputs), max(BATCHES))) % len(inputs)  # few images fill a batch more than once
    parts = [places[:size] for size in BATCHES]
    parts += np.split(places, range(max(BATCHES), len(places), max(BATCHES)))
    answers = np.concatenate([loaded(inputs[part]) for part in parts])
    return _agreement(answers, wanted[np.concatenate(parts)], scale=scale, images=len(inputs), tolerance=TOLERANCE)


def _of_other_sizes(loaded: Loaded, samples: Samples, wanted: np.ndarray) -> Agreement | None:
    side = samples.canvases.shape[-1]
    others = [index for index, size in enumerate(samples.sizes) if size != (side, side)]
    if not others:
        return None
    answers = np.concatenate([loaded(samples.image(index)[None]) for index in others])
    return _agreement(answers, wanted[others], scale=1.0, images=len(others), tolerance=RESIZED_TOLERANCE)


def _agreement(answers: np.ndarray, wanted: np.ndarray, *, scale: float, images: int, tolerance: float) -> Agreement:
    return Agreement(
        images=images,
        max_difference=float(np.abs(answers - wanted).max() / scale),
        tolerance=tolerance,
        top1_agreement=float((answers.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
    )
