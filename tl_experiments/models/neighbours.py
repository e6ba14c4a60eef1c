"""A head that has learnt nothing but where its training images lie: the nearest of them vote."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.models.head_kinds import HeadKind

LEAST_SHARE = 1e-6  # of the votes, whose logarithm is finite
MOST_SIMILARITIES = 2**25  # at once: 128 MB
BELOW_ALL = -2.0  # cosines are -1 or more


@dataclass(frozen=True)
class Neighbours(HeadKind):
    """The weighted vote of the nearest training images.

    Attributes:
        num_images: N, of training.
        most: neighbours at most, up to N.
        temperature: a neighbour's vote weighs exp(cosine / temperature).
    """

    num_images: int
    most: int
    temperature: float

    def _make(self, feature_dim: int, num_classes: int) -> "NeighboursHead":
        return NeighboursHead(feature_dim, num_classes, self)


class NeighboursHead(nn.Module):
    """Features (B, D) → the logarithms of vote shares (B, C): weighted k-NN (Wu et al. 2018; Caron et al. 2021, DINO).

    The training images' features, as float32 (N, D) of length 1, their labels and k are tensors of the module.
    """

    directions: torch.Tensor
    labels: torch.Tensor
    k: torch.Tensor

    def __init__(self, feature_dim: int, num_classes: int, kind: Neighbours) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(kind.num_images, feature_dim))
        self.register_buffer("labels", torch.zeros(kind.num_images, dtype=torch.int64))
        self.register_buffer("k", torch.ones((), dtype=torch.int64))
        self.num_classes = num_classes
        self.kind = kind

    @torch.no_grad()
    def remember(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep training images: features (N, D) and labels (N,)."""
        self.directions.copy_(F.normalize(features.float(), dim=1))
        self.labels.copy_(labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():  # the number of parts would depend on the batch, which a graph leaves open
            return self.vote(self._nearest(F.normalize(features.float(), dim=1), first=None))
        return self.vote(self.nearest(features))

    def nearest(self, features: torch.Tensor, *, are_own: bool = False) -> torch.Tensor:
        """Find the neighbours of images, in parts so that memory is bounded.

        Args:
            features: (B, D).
            are_own: they are the remembered ones, in order, and no image is its own neighbour.

        Returns:
            float32 (B, 2, M): cosines, falling, and labels (whole numbers) of the M nearest.
        """
        rows = max(1, MOST_SIMILARITIES // len(self.directions))
        parts = F.normalize(features.float(), dim=1).split(rows)
        found = [self._nearest(part, first=rows * index if are_own else None) for index, part in enumerate(parts)]
        return torch.cat(found)

    def _nearest(self, directions: torch.Tensor, *, first: int | None) -> torch.Tensor:
        cosines = directions @ self.directions.T
        if first is not None:
            cosines.diagonal(offset=first).fill_(BELOW_ALL)
        cosines, places = cosines.topk(self.kind.most, dim=1)
        return torch.stack([cosines, self.labels[places].to(cosines.dtype)], dim=1)

    def vote(self, nearest: torch.Tensor) -> torch.Tensor:
        """Map what `nearest` returned, (B, 2, M), to the logarithms of vote shares (B, C) of the first k."""
        cosines, labels = nearest.unbind(dim=1)
        counts = torch.arange(self.kind.most, device=cosines.device) < self.k  # k is not waited for on a device
        weights = ((cosines - cosines[:, :1]) / self.kind.temperature).exp() * counts
        size = (weights.shape[0], self.num_classes)  # not len(weights), which would fix the batch of an exported graph
        votes = weights.new_zeros(size).scatter_add(1, labels.long(), weights)
        return (votes / weights.sum(dim=1, keepdim=True)).clamp(min=LEAST_SHARE).log()
