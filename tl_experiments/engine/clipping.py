"""Gradients whose norm is above a bound are scaled down to it (Pascanu et al. 2013), for K members side by side.

Only norms of one member's tensor at a time and single operations are used, so that a member gets the same bits alone
and in a bank.
"""

from collections.abc import Sequence
from functools import reduce

import torch

from tl_experiments.engine.bank_rules import like

SMALLEST = 1e-6  # that is added to a norm, as `torch.nn.utils.clip_grad_norm_` does


def member_norms(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of all gradients of each member together.

    Args:
        gradients: (K, ...) float32, at least one.

    Returns:
        (K,) float32.
    """
    norms = torch.stack(torch._foreach_norm([own for gradient in gradients for own in gradient.unbind()]))
    of_each = norms.view(len(gradients), -1)
    return reduce(torch.add, (of_each * of_each).unbind()).sqrt()


def clip_members(gradients: Sequence[torch.Tensor], norms: torch.Tensor, *, max_norm: float) -> None:
    """Scale the gradients of each member whose norm is larger than `max_norm`, in place.

    Args:
        gradients: (K, ...).
        norms: (K,), of all of them together; where they are not finite, neither are the gradients afterwards.
        max_norm: above 0.
    """
    scales = (max_norm / (norms + SMALLEST)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(like(scales, gradient))
