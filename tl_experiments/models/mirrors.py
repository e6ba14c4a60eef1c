"""What a network says of images and their mirror images together (test-time augmentation)."""

import math

import torch

LOG_2 = math.log(2)


def mean_logits(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean of the probabilities that two sets of logits (..., C) mean."""
    return torch.logaddexp(logits.log_softmax(-1), others.log_softmax(-1)) - LOG_2
