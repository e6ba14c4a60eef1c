"""Which of a run's settings become MLflow params: the few that describe it, flat, and never a path."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from tl_experiments.tracking.tracker import ParamValue

RECIPES = ("experiment", "grid")
KNOBS = ("lr", "epochs", "batch_size", "seed")
# Options that most runs leave alone, and the value with which each does nothing: it is no param then.
OF_STEPS: dict[str, ParamValue] = {  # that gradient steps are taken with
    "label_smoothing": 0,
    "class_weights": None,
    "sampler": "shuffle",
    "mixup_alpha": 0,
    "cutmix_alpha": 0,
    "accumulate_steps": 1,
    "clip_grad_norm": None,
    "ema_decay": None,
    "early_stopping.patience": None,
}
OPTIONS = OF_STEPS | {"tta": "none"}
OF_GROUPS: dict[str, ParamValue] = {  # the same of keys that groups hold
    "strategy.layer_decay": 1.0,
    "strategy.l2_sp": 0.0,
    "head.dropout": 0.0,
    "augmentation.erase_prob": 0.0,
    "runtime.fsdp": False,
}
GROUPS = ("backbone", "strategy", "head", "optimizer", "scheduler", "dataset", "augmentation", "runtime")

# Keys that say how a run is built, where files lie, or how fast things go.
BUILDING = {"_target_", "_partial_", "lr"}  # `lr` is a knob, and told as that
PLACES = {"root", "download"}
SPEED = {"workers", "image_memory_gb", "infer_batch_size", "log_every_steps", "cache", "rank_timeout"}
LEFT_OUT = BUILDING | PLACES | SPEED


def run_params(config: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, ParamValue]:
    """Return the params of one run in reading order: knobs, the option of each group, then the groups' values.

    Args:
        config: the resolved configuration as plain dicts, lists and scalars.
        choices: option chosen in each group, such as {"backbone": "resnet18"}; other keys are ignored.
    """
    params: dict[str, ParamValue] = {knob: config[knob] for knob in KNOBS}
    params |= {key: _told(value) for key, off in OPTIONS.items() if (value := _value(config, key)) != off}
    params |= {group: choices[group] for group in (*RECIPES, *GROUPS) if group in choices}
    for group in GROUPS:
        params |= dict(_flat(config.get(group) or {}, prefix=group))
    params = {key: value for key, value in params.items() if key not in OF_GROUPS or value != OF_GROUPS[key]}
    for group in GROUPS:
        if params.get(f"{group}.name") == params.get(group):
            params.pop(f"{group}.name", None)
    return params


def _told(value: Any) -> ParamValue:
    """Return weights of classes as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={weight:g}" for name, weight in value.items())
    return value


def _value(config: Mapping[str, Any], key: str) -> ParamValue:
    """Return what a dotted key holds; how the option does nothing where there is no such key."""
    node: Any = config
    for part in key.split("."):
        if part not in node:
            return OPTIONS[key]
        node = node[part]
    return node


def _flat(node: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, ParamValue]]:
    for key, value in node.items():
        if key in LEFT_OUT:
            continue
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=name)
        elif isinstance(value, list | tuple):
            yield name, ", ".join(str(item) for item in value)
        else:
            yield name, _file_name(value) if key == "weights" else value


def _file_name(weights: ParamValue) -> ParamValue:
    """Return `weights` without the folder it lies in."""
    return PurePath(weights).name if isinstance(weights, str) else weights


def as_text(value: ParamValue) -> str:
    """Return `value` as a user would type it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
