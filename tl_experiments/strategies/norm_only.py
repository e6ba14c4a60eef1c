"""Only the normalisation layers and a new head are trained.

Scales and shifts are a hundredth of a network's parameters, and choose among the features that it has (Frankle et al.
2021, "Training BatchNorm and only BatchNorm").
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tl_experiments.models.selections import norm_parameters
from tl_experiments.strategies.selected import Selected


@dataclass(frozen=True, kw_only=True)
class NormOnly(Selected):
    """Train scales and shifts of the norms."""

    name: ClassVar[str] = "norm_only"
    what: ClassVar[str] = "normalisation layers"

    def chosen(self, body: nn.Module) -> frozenset[str]:
        return norm_parameters(body)
