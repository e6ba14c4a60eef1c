"""Multinomial logistic regression on frozen features, solved and not trained; its regularisation is chosen on val.

The linear probe of Kornblith et al. 2019: L-BFGS, one solution for each strength of L2, each begun from the one before.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.data.batches import Batches
from tl_experiments.strategies.base import Workload
from tl_experiments.strategies.materials import Materials
from tl_experiments.strategies.on_features import OneHead, open_features, whole_split
from tl_experiments.strategies.solved import Solved, solved_phase

MOST_STEPS = 1000  # of L-BFGS; 5,000 images of CIFAR-10 take 30 to 130
TOLERANCE = 1e-5  # of the largest element of the gradient of the mean loss
CONSTANT = 1e-12  # a feature of less variance is left as it is


@dataclass(frozen=True, kw_only=True)
class Logistic(Solved):
    """Solve for a linear head.

    Attributes:
        num_c: values of C that are tried, one an epoch, evenly spaced in the logarithm.
        min_c, max_c: the first and the last. C is scikit-learn's: 1/2 |W|^2 + C times the sum of cross-entropies, of
            features with mean 0 and variance 1 on train; the bias is free.
    """

    num_c: int
    min_c: float
    max_c: float

    def prepare(self, materials: Materials) -> Workload:
        """Put a linear head behind the backbone; one member at a time."""
        values = np.geomspace(self.min_c, self.max_c, self.num_c).tolist()
        model = materials.new_model()
        head = model.head
        assert isinstance(head, nn.Linear)  # the only kind that is admitted where no steps are taken

        def solve(train: Batches, epoch: int) -> None:
            features, labels = whole_split(train)
            solve_logistic(head, features, labels, c=values[epoch - 1], warm=epoch > 1)

        phase = solved_phase(
            materials,
            OneHead(head),
            name="logistic",
            values={"c": values},
            open=lambda: open_features(materials, in_order=True),
            solve=solve,
        )
        return Workload(
            phases=(phase,),
            groups=(),
            deployables=(model,),
            trained=frozenset({"head.weight", "head.bias"}),
        )


def solve_logistic(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor, *, c: float, warm: bool) -> None:
    """Put the optimum into a linear head, in float64 and on the features' device.

    Args:
        head: (D → C), float32, of the features as they are: their standardisation is folded into it.
        features: (N, D).
        labels: (N,) int64.
        c: above 0, as scikit-learn has it.
        warm: begin from what the head is, not from zero.
    """
    samples = features.double()
    variance, mean = torch.var_mean(samples, dim=0, correction=0)
    scale = torch.where(variance > CONSTANT, variance, 1.0).sqrt()
    samples = (samples - mean) / scale
    weight, bias = (parameter.detach().double() for parameter in (head.weight, head.bias))
    weight, bias = (weight * scale, bias + weight @ mean) if warm else (weight * 0, bias * 0)
    weight, bias = _optimum(samples, labels, weight, bias, decay=1 / (c * len(samples))).split([len(mean), 1], dim=1)
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        head.bias.copy_(bias[:, 0] - (weight / scale) @ mean)


def _optimum(
    samples: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, decay: float
) -> torch.Tensor:
    """Return weights and bias (C, D + 1) that minimise the mean cross-entropy plus decay / 2 |weights|^2."""
    both = torch.cat([weight, bias[:, None]], dim=1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [both],
        max_iter=MOST_STEPS,
        max_eval=2 * MOST_STEPS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = F.linear(samples, both[:, :-1], both[:, -1])
        value = F.cross_entropy(logits, labels) + decay / 2 * both[:, :-1].square().sum()
        value.backward()
        return value.detach()

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]  # tensors are what it takes
    return both.detach()
