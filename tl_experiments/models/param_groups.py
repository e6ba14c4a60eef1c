"""Which parameters are trained how: learning-rate scale, weight decay and pull as data, fixed before step 0."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import nn

TOKENS = ("class_token", "pos_embedding")  # of torchvision's transformers


@dataclass(frozen=True)
class Part:
    """How a part of a network is trained.

    Attributes:
        name: of the part, for people.
        lr_scale: times the base rate.
        l2_sp: strength of the pull towards the weights that training begins with, in place of weight decay; 0 is none.
    """

    name: str = "all"
    lr_scale: float = 1.0
    l2_sp: float = 0.0


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a rate and a rule.

    Attributes:
        name: the part that they belong to, and whether they decay.
        params: the parameters.
        param_names: their names in the module.
        lr_scale: times the base rate.
        weight_decay: whether the optimizer's weight decay applies.
        has_member_axis: whether the parameters are those of K members, (K, ...).
        l2_sp: towards the weights that training begins with: this times the distance is added to the gradient.
    """

    name: str
    params: tuple[nn.Parameter, ...] = field(repr=False)
    param_names: tuple[str, ...]
    lr_scale: float
    weight_decay: bool
    has_member_axis: bool
    l2_sp: float = 0.0


def all_parts(module: nn.Module, *, name: str = "all") -> dict[str, Part]:
    """Train every parameter at the base rate, as a part of that name."""
    return {parameter: Part(name) for parameter, _ in module.named_parameters()}


def param_groups(module: nn.Module, parts: Mapping[str, Part], *, has_member_axis: bool) -> tuple[ParamGroup, ...]:
    """Sort the parameters that are trained into groups; biases, norms, tokens and tables of positions do not decay.

    Args:
        module: whose parameters.
        parts: of each parameter that is trained in any phase, by name; those that have none are frozen.
        has_member_axis: whether the parameters are those of K members, (K, ...).

    Raises:
        ValueError: a name that is no parameter's, or none at all.
    """
    parameters = dict(module.named_parameters())
    if unknown := sorted(set(parts) - set(parameters)):
        raise ValueError(f"no such parameter: {', '.join(unknown)}")
    if not parts:
        raise ValueError("nothing is trained")
    members: dict[tuple[Part, bool], list[str]] = {}
    exempt = _exempt(module)
    for name, parameter in parameters.items():
        if name in parts:
            decays = _decays(name, parameter) and name not in exempt and not parts[name].l2_sp
            members.setdefault((parts[name], decays), []).append(name)
    return tuple(
        ParamGroup(
            name=f"{part.name}/{'decay' if decays else 'no_decay'}",
            params=tuple(parameters[name] for name in names),
            param_names=tuple(names),
            lr_scale=part.lr_scale,
            weight_decay=decays,
            has_member_axis=has_member_axis,
            l2_sp=part.l2_sp,
        )
        for (part, decays), names in members.items()
    )


def _exempt(module: nn.Module) -> frozenset[str]:
    """Return the names of tokens and positions: what timm's networks say of themselves, and torchvision's."""
    return frozenset(
        f"{path}.{own}" if path else own
        for path, child in module.named_modules()
        for own in (*_told(child), *(name for name, _ in child.named_parameters(recurse=False) if name in TOKENS))
    )


def _told(module: nn.Module) -> Collection[str]:
    told: Callable[[], Collection[str]] | None = getattr(module, "no_weight_decay", None)
    return () if told is None else told()


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Norms, scales and most biases are vectors; the biases of a bank are a matrix, and told by their name."""
    return parameter.ndim > 1 and not name.endswith("bias")
