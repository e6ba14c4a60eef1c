"""Only biases and a new head are trained (Ben Zaken et al. 2022, "BitFit")."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from tl_experiments.models.selections import bias_parameters
from tl_experiments.strategies.selected import Selected


@dataclass(frozen=True, kw_only=True)
class BiasOnly(Selected):
    """Train all biases: of convolutions and linear layers where they have them, and of norms."""

    name: ClassVar[str] = "bias_only"
    what: ClassVar[str] = "biases"

    def chosen(self, body: nn.Module) -> frozenset[str]:
        return bias_parameters(body)
