"""Which jobs of a sweep train on the same frozen features."""

from collections.abc import Sequence
from typing import Any

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.runtime.fingerprint import fingerprint

NODES = ("backbone", "dataset", "runtime")


def shared_features(members: Sequence[Member]) -> list[tuple[int, ...]]:
    """Return the positions of the members that need the same features, for each set of two or more."""
    sets: dict[str, list[int]] = {}
    for position, member in enumerate(members):
        if build.uses_features(member):
            sets.setdefault(_features_key(member.config), []).append(position)
    return [tuple(positions) for positions in sets.values() if len(positions) > 1]


def _features_key(config: dict[str, Any]) -> str:
    """Features depend on the seed only where the backbone's weights are drawn by it."""
    random = config["backbone"].get("weights") is None
    return fingerprint({node: config[node] for node in NODES} | {"seed": config["seed"] if random else None})
