"""PyTorch's update rules for K members at once, each with its own settings.

Only single additions, products, quotients and square roots are used: each is rounded once, whatever the vector width or
the number of members, so that a member gets the same bits alone and in a bank. (`addcmul`, `lerp` and `alpha=` may or
may not be fused, depending on where in the tensor an element lies.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

from tl_experiments.engine.optimizers import OptimizerFactory

Settings = Mapping[str, Any]  # an optimizer's defaults: lr, weight_decay, betas, ...
Scalars = tuple[float, ...]  # of one member for one step, in float64
PLAIN = {"amsgrad": False, "maximize": False, "dampening": 0, "centered": False}  # variants that have no rule


@dataclass(frozen=True)
class Rule:
    """How one class of optimizers updates a tensor.

    Attributes:
        num_states: tensors of the parameter's shape that it keeps, zero at first.
        scalars: (settings, lr, whether weight decay applies, steps so far and this one) → what `apply` needs.
        apply: changes parameter and states (K, ...) in place, given the gradient and the scalars as columns.
    """

    num_states: int
    scalars: Callable[[Settings, float, bool, int], Scalars]
    apply: Callable[[torch.Tensor, torch.Tensor, list[torch.Tensor], Sequence[torch.Tensor]], None]


def _sgd_scalars(settings: Settings, lr: float, decays: bool, num_steps: int) -> Scalars:  # noqa: ARG001
    ahead = 1.0 if settings["nesterov"] else 0.0
    momentum = float(settings["momentum"])
    return lr, settings["weight_decay"] * decays, momentum, ahead, ahead * momentum + (1.0 - ahead)


def _sgd(
    parameter: torch.Tensor, grad: torch.Tensor, states: list[torch.Tensor], columns: Sequence[torch.Tensor]
) -> None:
    lr, weight_decay, momentum, ahead, share = (like(column, parameter) for column in columns)
    [velocity] = states
    grad = grad + parameter * weight_decay
    velocity.mul_(momentum).add_(grad)
    parameter.sub_((grad * ahead).add_(velocity * share).mul_(lr))


def _adam_scalars(settings: Settings, lr: float, decays: bool, num_steps: int) -> Scalars:
    beta1, beta2 = settings["betas"]
    step_size, root = lr / (1 - beta1**num_steps), math.sqrt(1 - beta2**num_steps)
    decay = settings["weight_decay"] * decays
    return step_size, 1 - lr * decay, decay, beta1, 1 - beta1, beta2, 1 - beta2, root, settings["eps"]


def _adam(
    parameter: torch.Tensor, grad: torch.Tensor, states: list[torch.Tensor], columns: Sequence[torch.Tensor]
) -> None:
    """Adam (Kingma & Ba 2015), with weight decay in the gradient."""
    step_size, _, decay, *rest = (like(column, parameter) for column in columns)
    _adam_step(parameter, grad + parameter * decay, states, step_size, rest)


def _adamw(
    parameter: torch.Tensor, grad: torch.Tensor, states: list[torch.Tensor], columns: Sequence[torch.Tensor]
) -> None:
    """AdamW (Loshchilov & Hutter 2019): the weights shrink by themselves."""
    step_size, kept, _, *rest = (like(column, parameter) for column in columns)
    parameter.mul_(kept)
    _adam_step(parameter, grad, states, step_size, rest)


def _adam_step(
    parameter: torch.Tensor,
    grad: torch.Tensor,
    states: list[torch.Tensor],
    step_size: torch.Tensor,
    rest: Sequence[torch.Tensor],
) -> None:
    beta1, new1, beta2, new2, root, eps = rest
    mean, square = states
    mean.mul_(beta1).add_(grad * new1)
    square.mul_(beta2).add_((grad * grad).mul_(new2))
    parameter.sub_((mean / square.sqrt().div_(root).add_(eps)).mul_(step_size))


def _rmsprop_scalars(settings: Settings, lr: float, decays: bool, num_steps: int) -> Scalars:  # noqa: ARG001
    alpha = settings["alpha"]
    return lr, settings["weight_decay"] * decays, alpha, 1 - alpha, settings["eps"], settings["momentum"]


def _rmsprop(
    parameter: torch.Tensor, grad: torch.Tensor, states: list[torch.Tensor], columns: Sequence[torch.Tensor]
) -> None:
    lr, weight_decay, alpha, new, eps, momentum = (like(column, parameter) for column in columns)
    square, velocity = states
    grad = grad + parameter * weight_decay
    square.mul_(alpha).add_((grad * grad).mul_(new))
    velocity.mul_(momentum).add_(grad / square.sqrt().add_(eps))
    parameter.sub_(velocity * lr)


RULES: dict[type, Rule] = {
    SGD: Rule(1, _sgd_scalars, _sgd),
    Adam: Rule(2, _adam_scalars, _adam),
    AdamW: Rule(2, _adam_scalars, _adamw),
    RMSprop: Rule(2, _rmsprop_scalars, _rmsprop),
}


def read_settings(factory: OptimizerFactory) -> tuple[type | None, Settings]:
    """Return the class that has a rule, or None, and the settings of an optimizer that lacks its parameters only."""
    optimizer = factory([torch.zeros(1, requires_grad=True)])  # type: ignore[list-item]
    settings = optimizer.param_groups[0]
    kind = type(optimizer)
    plain = all(settings.get(key, value) == value for key, value in PLAIN.items())
    decoupled = settings.get("decoupled_weight_decay", False) == (kind is AdamW)
    return (kind if kind in RULES and plain and decoupled else None), settings


def as_columns(scalars: Sequence[Scalars], *, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Turn the scalars of K members into float32 tensors (K,) on the device, without waiting for it."""
    table = torch.tensor(scalars, dtype=torch.float32)
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    return table.unbind(dim=1)


def like(column: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Shape (K,) so that it is applied along the leading axis of (K, ...)."""
    return column.view(-1, *[1] * (parameter.ndim - 1))
