"""From what a group names to an object: the only file that instantiates what a configuration names."""

import inspect
from collections.abc import Mapping, Sequence
from inspect import isfunction
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch.optim import Optimizer

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.targets import HOMES, allowed_prefixes
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.source import Dataset
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import HeadKind
from tl_experiments.runtime.importing import importing
from tl_experiments.strategies.base import Strategy
from tl_experiments.tracking.tracker import Tracker

_NOTHING: Mapping[str, Any] = {}

# Group -> what its target makes, if it is one of ours or PyTorch's.
MADE: dict[str, type] = {
    "backbone": Backbone,
    "strategy": Strategy,
    "head": HeadKind,
    "optimizer": Optimizer,
    "scheduler": Schedule,
    "dataset": Dataset,
    "augmentation": Augmentation,
    "tracking": Tracker,
}


def instantiate_group(member: Member, group: str, *, offered: Mapping[str, Any] = _NOTHING, **arguments: Any) -> Any:
    """Call what a group's `_target_` names with the group's values and what only the code knows.

    Args:
        member: whose group it is.
        group: its name.
        offered: what the target gets if it has a parameter of that name.
        arguments: what it gets in any case.
    """
    allowed, node = member.config["allow_targets"], member.config[group]
    return instantiate_node(node, group, allow_targets=allowed, **arguments, **_wanted(node, offered))


def _wanted(node: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with importing():
            target = get_object(node["_target_"])
        parameters = inspect.signature(target).parameters
    except (ImportError, AttributeError, ValueError, TypeError):  # which is told of when it is checked
        return {}
    return {name: value for name, value in offered.items() if name in parameters}


def instantiate_node(node: Mapping[str, Any], group: str, *, allow_targets: Sequence[str], **arguments: Any) -> Any:
    """Do so with a node that is no member's: what is said of a trained model is checked like what is typed."""
    _check(node, group, allow_targets=allow_targets, supplied=arguments)
    try:
        return instantiate(node, **arguments, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None  # what went wrong in there says it best


def check_target(
    member: Member, group: str, *, supplied: Mapping[str, Any], offered: Mapping[str, Any] = _NOTHING
) -> None:
    """Find the target, see where it lives, what it makes, and that it takes the keys; raises ConfigError."""
    node = member.config[group]
    given = {**supplied, **_wanted(node, offered)}
    _check(node, group, allow_targets=member.config["allow_targets"], supplied=given)


def _check(node: Mapping[str, Any], group: str, *, allow_targets: Sequence[str], supplied: Mapping[str, Any]) -> None:
    """See whether a target may be called, and takes what it is given; raises ConfigError.

    An allowed prefix is not enough: `tl_experiments.models.x.os.system` begins well and ends elsewhere, and
    `torch.optim.swa_utils.update_bn` ends well but is no optimizer.
    """
    target = node["_target_"]
    try:
        with importing():
            found = get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{group}._target_={target}: there is no such thing to call") from error
    home = f"{getattr(found, '__module__', None)}."
    if not home.startswith(allowed_prefixes(group, allow_targets)):
        raise ConfigError(f"{group}._target_={target}: leads to {home.rstrip('.')}, which is not allowed")
    if home.startswith(HOMES[group]) and not _makes(found, MADE[group]):
        raise ConfigError(f"{group}._target_={target}: expected what makes {MADE[group].__name__}")
    keys = {key: value for key, value in node.items() if not key.startswith("_")}
    try:
        signature = inspect.signature(found)
        (signature.bind_partial if node.get("_partial_") else signature.bind)(**keys, **supplied)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{group}: {target} does not take the keys that are given: {error}") from error


def _makes(found: Any, kind: type) -> bool:
    """Whether something is a class of that kind, or a function that says that it returns one."""
    made = found if isinstance(found, type) else get_type_hints(found).get("return") if isfunction(found) else None
    if not isinstance(made, type):
        return False
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(made, name) for name in vars(kind) if not name.startswith("_"))
    return issubclass(made, kind)
