"""What an optimizer of PyTorch's kind remembers, as named tensors and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from tl_experiments.runtime.errors import SettingError

NUMBER = "number:"  # before the name of what is a Python number in the optimizer


def optimizer_state(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the state of every parameter as `index/name`; rates and other settings of groups are not among it.

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
    return state


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Go on with what `optimizer_state` returned; groups keep their settings."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        index, _, name = key.partition("/")
        own = remembered.setdefault(int(index), {})
        if name.startswith(NUMBER):
            own[name.removeprefix(NUMBER)] = value.item()
        else:
            own[name] = _laid_out(value, parameters[int(index)])
    optimizer.load_state_dict({"state": remembered, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return the value in memory as the optimizer had it: like its parameter, which need not be contiguous."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _dtype(value: int | float) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.int64 if isinstance(value, int) else torch.float64
