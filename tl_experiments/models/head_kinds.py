"""The kinds of heads: trainable layers from features (B, D) to logits (B, C), and what each is made by."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.runtime.seeding import seeded


class HeadKind(ABC):
    """Makes heads of one kind."""

    @property
    def joins_bank(self) -> bool:
        """Whether many of them can be trained side by side in a `HeadBank`, which is linear."""
        return False

    def make(self, *, feature_dim: int, num_classes: int, seed: int) -> nn.Module:
        """Make a head with PyTorch's own initialisation under a seed; no other generator moves."""
        with seeded(seed):
            return self._make(feature_dim, num_classes)

    @abstractmethod
    def _make(self, feature_dim: int, num_classes: int) -> nn.Module:
        """Make a head from features (B, D) to logits (B, C), float32, drawn from torch's generator."""


@dataclass(frozen=True)
class Linear(HeadKind):
    """One linear layer.

    Attributes:
        dropout: share of the features that a training step leaves out (Srivastava et al. 2014).
    """

    dropout: float

    @property
    def joins_bank(self) -> bool:
        return self.dropout == 0

    def _make(self, feature_dim: int, num_classes: int) -> nn.Module:
        if self.dropout == 0:
            return nn.Linear(feature_dim, num_classes)
        return LinearHead(feature_dim, num_classes, dropout=self.dropout)


@dataclass(frozen=True)
class Mlp(HeadKind):
    """A hidden layer with ReLU before the linear one.

    Attributes:
        hidden_dim: width of the hidden layer.
        dropout: share of its values that a training step leaves out.
    """

    hidden_dim: int
    dropout: float

    def _make(self, feature_dim: int, num_classes: int) -> nn.Module:
        return MlpHead(feature_dim, num_classes, hidden_dim=self.hidden_dim, dropout=self.dropout)


@dataclass(frozen=True)
class Cosine(HeadKind):
    """The cosine between features and a weight for each class, times a scale (Gidaris & Komodakis 2018).

    Attributes:
        scale: of the logits, above 0; cosines alone, in -1..1, are no confident logits.
        learn_scale: whether it is trained too, from there on.
        dropout: share of the features that a training step leaves out.
    """

    scale: float
    learn_scale: bool
    dropout: float

    def _make(self, feature_dim: int, num_classes: int) -> nn.Module:
        return CosineHead(
            feature_dim, num_classes, scale=self.scale, learn_scale=self.learn_scale, dropout=self.dropout
        )


def linear_head(*, feature_dim: int, num_classes: int, seed: int) -> nn.Linear:
    """Make what most heads are: one linear layer, nothing left out."""
    head = Linear(dropout=0.0).make(feature_dim=feature_dim, num_classes=num_classes, seed=seed)
    assert isinstance(head, nn.Linear)
    return head


class LinearHead(nn.Linear):
    """Dropout before a linear layer, whose tensors have the names that they have without it."""

    def __init__(self, feature_dim: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(feature_dim, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(self.dropout(input))


class MlpHead(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, feature_dim: int, num_classes: int, *, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.output(self.dropout(F.relu(self.hidden(features))))


class CosineHead(nn.Module):
    """Features and weights of length 1; no bias. The scale is one of the tensors, trained or not."""

    def __init__(self, feature_dim: int, num_classes: int, *, scale: float, learn_scale: bool, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(feature_dim, num_classes, bias=False).weight.detach())
        if learn_scale:
            self.scale = nn.Parameter(torch.tensor(float(scale)))
        else:
            self.register_buffer("scale", torch.tensor(float(scale)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        directions = F.normalize(self.dropout(features), dim=1)
        return self.scale * F.linear(directions, F.normalize(self.weight, dim=1))
