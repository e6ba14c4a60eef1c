"""What can be seen of a configuration once its code is there, before anything is read."""

from functools import cache

import torch

from tl_experiments.build.parts import (
    build_head,
    build_mixing,
    build_optimizer,
    build_scheduler,
    build_strategy,
    seeks_rate,
    without_weights,
)
from tl_experiments.build.records import build_tracker
from tl_experiments.build.targets import check_target, instantiate_group
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.ranges import lookup
from tl_experiments.engine.bank_rules import read_settings
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import Linear
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Strategy
from tl_experiments.tracking.params import OF_STEPS, as_text


def check_buildable(member: Member) -> None:
    """Build what costs nothing, and see that the rest could be called with what it is given.

    Raises:
        ConfigError: a target does not exist, is not allowed, or refuses its values.
        SettingError: the address of the tracking store cannot be one.
    """
    strategy = build_strategy(member)
    _check_options(member, strategy)
    build_head(member)
    build_optimizer(member)
    build_scheduler(member)
    build_tracker(member)
    _check_strategy(strategy, member)
    check_target(member, "dataset", supplied={}, offered={"watch": None})
    for group, supplied in (("augmentation", {}), ("backbone", {"preferred_size": None, "seed": 0})):
        check_target(member, group, supplied=supplied)


def _check_options(member: Member, strategy: Strategy) -> None:
    """See that nothing was asked of gradient steps where none are taken."""
    if strategy.takes_steps:
        return
    name = member.choices["strategy"]
    if type(build_head(member)) is not Linear:
        asked = member.choices["head"]
        raise ConfigError(f"head={asked}: strategy={name} decides the head itself; expected head=linear")
    if dropout := member.config["head"]["dropout"]:
        raise ConfigError(f"head.dropout={dropout}: strategy={name} takes no gradient steps; expected head.dropout=0")
    if seeks_rate(member):
        raise ConfigError(f"lr=auto: strategy={name} takes no gradient steps; expected a number")
    for key, value in OF_STEPS.items():
        if (asked := lookup(member.config, key)) != value:
            raise ConfigError(
                f"{key}={asked}: strategy={name} takes no gradient steps, for which it is; "
                f"expected {key}={as_text(value)}"
            )


def _check_strategy(strategy: Strategy, member: Member) -> None:
    """See that the backbone allows what the strategy wants of it, on a sketch that holds no weights."""

    @cache
    def sketch() -> Backbone:
        with torch.device("meta"):
            return instantiate_group(without_weights(member), "backbone", preferred_size=None, seed=0)

    try:
        strategy.check(sketch)
    except SettingError as error:
        raise ConfigError(str(error)) from error


def shares_cpu(member: Member) -> bool:
    """Whether the member computes on the CPU with as many threads as there are cores."""
    runtime = member.config["runtime"]
    on_cpu = runtime["device"] == "cpu" or (runtime["device"] == "auto" and not torch.cuda.is_available())
    return on_cpu and runtime["threads"] is None


def bank_rule(member: Member) -> str | None:
    """Name the rule by which the member's head can be trained beside others; None where it is trained alone.

    It needs features that are computed once, an optimizer whose rule updates many heads at once, and a known rate.
    """
    if seeks_rate(member):
        return None
    strategy, augmentation = build_strategy(member), instantiate_group(member, "augmentation")
    kind, _ = read_settings(build_optimizer(member))
    joins = strategy.trains_bank(augmentation) and build_head(member).joins_bank and not build_mixing(member).is_on
    return kind.__name__ if kind is not None and joins else None
