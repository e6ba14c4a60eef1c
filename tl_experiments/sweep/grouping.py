"""Which jobs of a sweep one process runs together: those that train heads on the same frozen features."""

from collections.abc import Sequence
from typing import Any

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.runtime.fingerprint import fingerprint


def group_jobs(members: Sequence[Member], *, max_heads: int) -> tuple[tuple[int, ...], ...]:
    """Return the positions of the members that are run together, each member once, in the order of the first ones.

    Args:
        members: in the order of the plan.
        max_heads: of one group, so that memory does not grow with the sweep.
    """
    groups: dict[str, list[int]] = {}
    for position, member in enumerate(members):
        rule = build.bank_rule(member)
        key = f"alone {position}" if rule is None else _bank_key(member.config, rule)
        groups.setdefault(key, []).append(position)
    return tuple(
        sorted(
            tuple(positions[start : start + max_heads])
            for positions in groups.values()
            for start in range(0, len(positions), max_heads)
        )
    )


def _bank_key(config: dict[str, Any], rule: str) -> str:
    """Heads may differ by rate, seed, schedule, and the settings of optimizers of one rule.

    The seed decides on features too where it draws the backbone's weights.
    """
    random = config["backbone"].get("weights") is None
    own = {
        "lr": None,
        "seed": config["seed"] if random else None,
        "optimizer": rule,
        "scheduler": None,
    }
    return fingerprint({**config, **own})


def feature_key(member: Member) -> str | None:
    """Return what the features of a member are known by before they are computed; None where it does not keep any.

    Members with different keys may share features all the same.
    """
    strategy = build.build_strategy(member)
    if not strategy.learns_from_features or not build.keeps_features(member, strategy=strategy, watch=UNWATCHED):
        return None
    augmentation = build.build_augmentation(member, dataset=build.build_dataset(member))
    if strategy.runs_because(augmentation, build.build_mixing(member)):
        return None
    config = member.config
    parts = {group: config[group] for group in ("backbone", "dataset", "augmentation")}
    random = config["backbone"].get("weights") is None
    precision = config["runtime"].get("infer_precision")
    views = config["strategy"].get("views")
    return fingerprint({**parts, "seed": config["seed"] if random else None, "precision": precision, "views": views})
