"""From parameter groups to an optimizer: scales and weight decay are data of the groups."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from tl_experiments.models.param_groups import ParamGroup

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


def make_optimizer(factory: OptimizerFactory, groups: Sequence[ParamGroup], *, fused: bool) -> Optimizer:
    """Give every group its own rate, lr_scale times the optimizer's, and no weight decay where it has none.

    Args:
        factory: an optimizer class of which only the parameters are missing.
        groups: all trainable parameters.
        fused: update all parameters of a group in one pass, where the class can.
    """
    can_fuse = "fused" in inspect.signature(factory).parameters
    optimizer = factory(
        [
            {"params": list(group.params), "name": group.name, "lr_scale": group.lr_scale}
            | ({} if group.weight_decay else {"weight_decay": 0.0})
            | ({"fused": True} if fused and can_fuse else {})  # a False would take away `foreach` too
            for group in groups
        ]
    )
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_scale"]
    if averages(optimizer):
        optimizer.train()  # type: ignore[attr-defined]  # as it stays, but where `averaged` says otherwise
    return optimizer


def averages(optimizer: Optimizer) -> bool:
    """Whether an optimizer has an average of the weights for evaluation (Defazio et al. 2024, schedule-free)."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


@contextmanager
def averaged(optimizer: Optimizer) -> Iterator[None]:
    """Have that average in place; what is there afterwards is the weights that are trained but for rounding."""
    optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]


def base_lr(optimizer: Optimizer) -> float:
    """Return the rate of a group whose scale is 1, as the schedule has it now."""
    groups = optimizer.param_groups
    group = next((group for group in groups if group["lr_scale"] == 1), groups[0])  # whose rate is not rounded
    return float(group["lr"]) / group["lr_scale"]


def looks_itself(optimizer: Optimizer) -> bool:
    """Whether an optimizer leaves all as it is where `found_inf`, on the device, is 1; for others the host has to look.

    PyTorch's fused kernels do, which its GradScaler relies on. That of SGD begins with a momentum that nobody has
    written, which a first step that is left out would keep: it gets zeros, from which it goes on in the same way.
    """
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if type(optimizer) in (Adam, AdamW, Adagrad):
        return fused
    if type(optimizer) is not SGD or not fused or any(group["dampening"] for group in optimizer.param_groups):
        return False
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return True
