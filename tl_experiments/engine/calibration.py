"""How far a model's confidence can be believed: temperature scaling (Guo et al. 2017) and the calibration error."""

from dataclasses import dataclass

import numpy as np
import torch

MOST_TEMPERATURE = 20.0  # and at least 1 / 20: what lies beyond says that val cannot tell
PRIOR_SAMPLES = 2.0  # what the belief in a temperature of 1 weighs
NUM_BINS = 15


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the temperature T under which `softmax(logits / T)` of one model explains the labels best.

    It minimises the sum of the samples' negative log-likelihoods, which is convex in b = 1/T, plus a belief in 1 that
    is worth `PRIOR_SAMPLES` of them, PRIOR_SAMPLES * (b - log b), a gamma prior with its mode at 1. Without it a val
    split of which every sample is right would ask for T = 0; with some hundred samples it decides nothing.

    Args:
        logits: (N, C) of the val split, any N; samples with a value that is not finite are left out.
        labels: (N,) int64.

    Returns:
        In [1 / MOST_TEMPERATURE, MOST_TEMPERATURE]; 1 where the samples say nothing.
    """
    from scipy.optimize import brentq  # noqa: PLC0415 - a plan must not wait for it

    finite = logits.isfinite().all(dim=1)
    logits = logits[finite].cpu().double().contiguous()
    true = logits.gather(1, labels[finite].cpu()[:, None]).sum()

    def slope(log_temperature: float) -> float:
        """Return the derivative by b, which falls as the temperature rises."""
        inverse = float(np.exp(-log_temperature))
        expected = ((logits * inverse).softmax(dim=1) * logits).sum()
        return float(expected - true) + PRIOR_SAMPLES * (1 - 1 / inverse)

    most = float(np.log(MOST_TEMPERATURE))
    if slope(-most) <= 0:
        return 1 / MOST_TEMPERATURE
    if slope(most) >= 0:
        return MOST_TEMPERATURE
    found: float = brentq(slope, -most, most, xtol=1e-12)  # type: ignore[assignment]
    return float(np.exp(found))


@dataclass(frozen=True)
class Reliability:
    """What was said with which confidence, and how often it was right; arrays are (NUM_BINS,) float64.

    Attributes:
        share: of the samples, by equal bins of confidence over (0, 1]; each bin holds its upper end.
        confidence: mean in the bin; 0 where it is empty.
        accuracy: mean in the bin; 0 where it is empty.
    """

    share: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1] (Naeini et al. 2015; Guo et al. 2017)."""
        return float((self.share * np.abs(self.accuracy - self.confidence)).sum())


def reliability(probabilities: torch.Tensor, labels: torch.Tensor) -> Reliability:
    """Compare the confidence in the predicted classes with how often they are right.

    Args:
        probabilities: (N, C), N at least 1.
        labels: (N,) int64.
    """
    confidence, predicted = (found.numpy() for found in probabilities.double().max(dim=1))
    bins = np.clip(np.ceil(np.nan_to_num(confidence) * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
    sums = [
        np.bincount(bins, weights=values, minlength=NUM_BINS)
        for values in (np.ones_like(confidence), confidence, predicted == labels.numpy())
    ]
    count = np.maximum(sums[0], 1)
    return Reliability(share=sums[0] / len(confidence), confidence=sums[1] / count, accuracy=sums[2] / count)
