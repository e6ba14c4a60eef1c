"""Which parameters are trained how: learning-rate scale and weight decay as data, fixed before step 0."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a rate and a rule.

    Attributes:
        name: the prefix that selected them, and whether they decay.
        params: the parameters.
        param_names: their names in the module.
        lr_scale: times the base rate.
        weight_decay: whether the optimizer's weight decay applies.
        has_member_axis: whether the parameters are those of K members, (K, ...).
    """

    name: str
    params: tuple[nn.Parameter, ...] = field(repr=False)
    param_names: tuple[str, ...]
    lr_scale: float
    weight_decay: bool
    has_member_axis: bool


def param_groups(module: nn.Module, *, lr_scales: Mapping[str, float], has_member_axis: bool) -> tuple[ParamGroup, ...]:
    """Sort the trainable parameters into groups; biases and the parameters of norms do not decay.

    Args:
        module: whose parameters; those that need no gradient are left out.
        lr_scales: by the first part of a parameter's name; "" is every other.
        has_member_axis: whether the parameters are those of K members, (K, ...).

    Raises:
        ValueError: a trainable parameter that no scale covers, or none that is trainable.
    """
    members: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        prefix = part if part in lr_scales else ""
        if prefix not in lr_scales:
            raise ValueError(f"no learning-rate scale covers {name}; scales are given for {', '.join(lr_scales)}")
        members.setdefault((prefix, _decays(name, parameter)), []).append((name, parameter))
    if not members:
        raise ValueError("nothing is trainable")
    return tuple(
        ParamGroup(
            name=f"{prefix or 'all'}/{'decay' if decays else 'no_decay'}",
            params=tuple(parameter for _, parameter in named),
            param_names=tuple(name for name, _ in named),
            lr_scale=lr_scales[prefix],
            weight_decay=decays,
            has_member_axis=has_member_axis,
        )
        for (prefix, decays), named in members.items()
    )


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Norms, scales and most biases are vectors; the biases of a bank are a matrix, and told by their name."""
    return parameter.ndim > 1 and not name.endswith("bias")
