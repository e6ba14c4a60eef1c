"""Where the code of each group may come from: a target is code that will run, whoever wrote the configuration."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Group -> what its target may begin with. That it also ends there, and makes what the group is for, is seen in build.
HOMES: dict[str, tuple[str, ...]] = {
    "backbone": ("tl_experiments.models.",),
    "strategy": ("tl_experiments.strategies.",),
    "head": ("tl_experiments.models.head_kinds.", "tl_experiments.models.neighbours."),
    "optimizer": ("torch.optim.", "schedulefree."),
    "scheduler": ("tl_experiments.engine.schedulers.",),
    "dataset": ("tl_experiments.data.",),
    "augmentation": ("tl_experiments.data.augmentation.", "tl_experiments.data.policies."),
    "tracking": ("tl_experiments.tracking.",),
}
PARTIAL = ("optimizer", "scheduler")  # completed by the code
DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)  # no part is private


def allowed_prefixes(group: str, allow_targets: Sequence[str]) -> tuple[str, ...]:
    """Return what the `_target_` of a group may begin with, the user's own prefixes included; each ends with a dot."""
    return HOMES.get(group, ()) + tuple(prefix.rstrip(".*") + "." for prefix in allow_targets)


def target_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each key with which Hydra would run code, but for the one target of each group."""
    for group, node in config.items():
        if group not in HOMES or not isinstance(node, Mapping):
            yield from _special_keys({group: node})
            continue
        target = node.get("_target_")
        prefixes = allowed_prefixes(group, config["allow_targets"])
        if not isinstance(target, str) or not DOTTED.fullmatch(target) or not target.startswith(prefixes):
            listed = ", ".join(f"{prefix}*" for prefix in prefixes)
            yield (
                f"{group}._target_={target}: not an allowed target; expected {listed} "
                "(add the prefix of your own code by allow_targets=[your_package.])"
            )
        partial = node.get("_partial_", False)
        if partial is not (group in PARTIAL):
            yield f"{group}._partial_={partial}: not allowed here; expected {str(group in PARTIAL).lower()}"
        yield from _special_keys({k: v for k, v in node.items() if k not in ("_target_", "_partial_")}, path=group)


def _special_keys(node: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each key such as `_target_` or `_args_`, however deep it hides."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            below = f"{path}.{key}" if path else str(key)
            if str(key).startswith("_"):
                yield f"{below}={child}: not allowed here; expected a target at the top of a group alone"
            yield from _special_keys(child, below)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _special_keys(child, f"{path}[{index}]")
