"""What an optimizer of PyTorch's kind remembers, as named tensors and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from tl_experiments.models.sharded import put
from tl_experiments.runtime.errors import SettingError

NUMBER = "number:"  # before the name of what is a Python number in the optimizer
GROUP = "group"  # before the index of a group, where others have that of a parameter
OF_THE_SCHEDULE = ("lr", "initial_lr", "lr_scale")  # a schedule is played again


def optimizer_state(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the state of every parameter as `index/name`, and what an optimizer counts in its groups.

    Rates are not among it. PyTorch's own optimizers keep settings alone in their groups; others count steps there.

    Raises:
        SettingError: the optimizer remembers something that is neither a tensor nor a number.
    """
    state: dict[str, torch.Tensor] = {}
    for index, remembered in optimizer.state_dict()["state"].items():
        for name, value in remembered.items():
            if isinstance(value, torch.Tensor):
                state[f"{index}/{name}"] = value
            elif isinstance(value, int | float):
                state[f"{index}/{NUMBER}{name}"] = torch.tensor(value, dtype=_dtype(value))
            elif value is not None:
                kind = type(optimizer).__name__
                raise SettingError(
                    f"optimizer: {kind} remembers {name} as a {type(value).__name__}, which no checkpoint can hold; "
                    "expected tensors and numbers"
                )
    return state | _group_numbers(optimizer)


def _group_numbers(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the numbers in the groups of an optimizer that is not PyTorch's, its settings among them."""
    if type(optimizer).__module__.startswith("torch.optim."):
        return {}
    return {
        f"{GROUP}{index}/{NUMBER}{name}": torch.tensor(value, dtype=_dtype(value))
        for index, group in enumerate(optimizer.param_groups)
        for name, value in group.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in OF_THE_SCHEDULE
    }


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Go on with what `optimizer_state` returned; groups keep their rates."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for key, value in state.items():
        index, _, name = key.partition("/")
        if index.startswith(GROUP):
            groups[int(index.removeprefix(GROUP))][name.removeprefix(NUMBER)] = value.item()
            continue
        own = remembered.setdefault(int(index), {})
        if name.startswith(NUMBER):
            own[name.removeprefix(NUMBER)] = value.item()
        else:
            own[name] = _laid_out(value, parameters[int(index)])
    optimizer.load_state_dict({"state": remembered, "param_groups": groups})


def _laid_out(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return the value in memory as the optimizer had it: like its parameter, which need not be contiguous."""
    if value.shape != parameter.shape:
        return value.clone()
    return put(torch.empty_like(parameter, dtype=value.dtype, requires_grad=False), value)


def _dtype(value: int | float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64
