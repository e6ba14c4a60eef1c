"""Checks that types cannot express: ranges, rules across groups, allowed targets; nothing heavy is imported."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import unknown_key
from tl_experiments.config.schema import Run
from tl_experiments.config.targets import HOMES, target_problems

AUTO = "auto"  # lr: found by a range test when the run begins
SQLITE = "sqlite:///"
PHOTOGRAPH = "tl_experiments.data.augmentation.Augmentation"  # what others than this do is not told by its keys
MOST_SEED = 2**63 - 1
MOST_STEPS = 1_000_000_000
MOST_SECONDS = 1e8  # three years; threads cannot wait for ever

SCRATCH = "tl_experiments.strategies.scratch.Scratch"
CONSTANT = "tl_experiments.engine.schedulers.constant"

Check = tuple[str, Callable[[Any], bool], str]


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _non_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _fraction(value: float) -> bool:
    return 0 < value <= 1


def _proper_fraction(value: float) -> bool:
    return 0 < value < 1


def _probability(value: float) -> bool:
    return 0 <= value <= 1


def _at_least_one(value: float) -> bool:
    return math.isfinite(value) and value >= 1


def _up_to(most: int, *, least: int = 1) -> Callable[[int], bool]:
    """Accept counts that a machine could have; larger ones are slips, and would take all memory or raise far below."""
    return lambda value: least <= value <= most


def _train_size(value: float) -> bool:
    return value >= 1 if isinstance(value, int) else _fraction(value)


def _patterns(value: list[str]) -> bool:
    return bool(value) and all(isinstance(pattern, str) and pattern.strip() for pattern in value)


def _counts(value: list[int]) -> bool:
    return bool(value) and all(isinstance(count, int) and 1 <= count <= 10_000 for count in value)


def _range(value: list[float]) -> bool:
    return len(value) == 2 and 0 < value[0] <= value[1] < math.inf


def _rate(value: float | str) -> bool:
    return value == AUTO or (not isinstance(value, bool | str) and _positive(value))


def _device(value: str) -> bool:
    kind, _, index = value.partition(":")
    return value in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal() and len(index) < 4)


def _up_to_hundred(value: float) -> bool:
    return 0 <= value <= 100


def _class_weights(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(type(weight) in (int, float) and _positive(weight) for weight in value.values())
    return value == "auto"


# Keys that are absent or null are not checked: which keys exist is the schema's business.
RANGES: tuple[Check, ...] = (
    ("lr", _rate, "a number above 0, or auto"),
    ("epochs", _up_to(1_000_000), "1 to 1000000"),
    ("batch_size", _up_to(65_536), "1 to 65536"),
    ("seed", _up_to(MOST_SEED, least=0), "from 0 to 2^63 - 1"),
    ("label_smoothing", lambda value: 0 <= value < 1, "in [0, 1)"),
    ("class_weights", _class_weights, "auto, null, or numbers above 0 by the names of classes, as {cat: 2.0}"),
    ("mixup_alpha", _up_to_hundred, "0 to 100; 0 is off"),
    ("cutmix_alpha", _up_to_hundred, "0 to 100; 0 is off"),
    ("head.dropout", lambda value: 0 <= value < 1, "in [0, 1)"),
    ("head.hidden_dim", _up_to(65_536), "1 to 65536"),
    ("head.scale", _positive, "a number above 0"),
    ("accumulate_steps", _up_to(65_536), "1 to 65536"),
    ("clip_grad_norm", _positive, "a number above 0, or null"),
    ("ema_decay", _proper_fraction, "in (0, 1), or null"),
    ("early_stopping.patience", _up_to(1_000_000), "1 to 1000000 epochs, or null"),
    ("backbone.image_size", _up_to(4096), "1 to 4096 pixels, or null"),
    ("strategy.views", _up_to(1000), "1 to 1000, or null"),
    ("strategy.num_stages", _up_to(1000), "1 to 1000, or null"),
    ("strategy.train", _patterns, "one pattern or more, such as [layer4.*], or null"),
    ("strategy.backbone_lr_scale", _positive, "a number above 0 (strategy=feature freezes the backbone)"),
    ("strategy.layer_decay", _fraction, "in (0, 1]"),
    ("strategy.l2_sp", _non_negative, "0 or more"),
    ("strategy.probe_epochs", _up_to(1_000_000), "1 to 1000000"),
    ("strategy.probe_lr_scale", _positive, "a number above 0"),
    ("strategy.num_c", _up_to(1000), "1 to 1000"),
    ("strategy.min_c", _positive, "a number above 0"),
    ("strategy.max_c", _positive, "a number above 0"),
    ("strategy.num_neighbours", _counts, "one count or more, each 1 to 10000, as [5,10,20]"),
    ("strategy.temperature", _positive, "a number above 0"),
    ("strategy.rank", _up_to(4096), "1 to 4096"),
    ("strategy.alpha", _positive, "a number above 0"),
    ("strategy.dropout", lambda value: 0 <= value < 1, "in [0, 1)"),
    ("strategy.targets", _patterns, "one pattern or more, such as [*.qkv], or null"),
    ("strategy.every_epochs", _up_to(1_000_000), "1 to 1000000"),
    ("optimizer.weight_decay", _non_negative, "0 or more"),
    ("optimizer.momentum", lambda value: 0 <= value < 1, "in [0, 1)"),
    ("optimizer.alpha", lambda value: 0 <= value < 1, "in [0, 1)"),
    ("optimizer.eps", _positive, "a number above 0"),
    ("optimizer.warmup_steps", _up_to(MOST_STEPS, least=0), "0 to 10^9 steps"),
    ("optimizer.betas", lambda value: len(value) == 2 and all(0 <= v < 1 for v in value), "two numbers in [0, 1)"),
    ("scheduler.warmup_epochs", _non_negative, "0 or more"),
    ("scheduler.min_lr_fraction", _probability, "in [0, 1]"),
    ("scheduler.step_size", _at_least_one, "1 or more epochs"),
    ("scheduler.gamma", _fraction, "in (0, 1]"),
    ("scheduler.pct_start", _proper_fraction, "in (0, 1)"),
    ("scheduler.div_factor", _at_least_one, "1 or more"),
    ("scheduler.final_div_factor", _at_least_one, "1 or more"),
    ("scheduler.factor", _proper_fraction, "in (0, 1)"),
    ("scheduler.patience", _non_negative, "0 or more epochs"),
    ("dataset.train_size", _train_size, "a count of 1 or more, or a fraction in (0, 1]"),
    ("dataset.val_fraction", _proper_fraction, "in (0, 1)"),
    ("dataset.test_fraction", _proper_fraction, "in (0, 1)"),
    ("dataset.split_seed", _up_to(MOST_SEED, least=0), "from 0 to 2^63 - 1"),
    ("dataset.image_size", _up_to(4096), "1 to 4096 pixels"),
    ("dataset.crop_pct", _fraction, "in (0, 1]"),
    ("augmentation.hflip_prob", _probability, "in [0, 1], or null"),
    ("augmentation.rotation_degrees", lambda value: 0 <= value <= 180, "in [0, 180]"),
    ("augmentation.scale", lambda value: _range(value) and value[1] <= 1, "two rising fractions in (0, 1]"),
    ("augmentation.ratio", _range, "two rising numbers above 0"),
    ("augmentation.erase_prob", _probability, "in [0, 1]"),
    ("augmentation.num_ops", _up_to(14), "1 to 14"),
    ("augmentation.magnitude", _up_to(30, least=0), "0 to 30"),
    ("runtime.device", _device, "auto, cpu, cuda or cuda:N"),
    ("runtime.infer_batch_size", _up_to(65_536), "1 to 65536, or null"),
    ("runtime.threads", _up_to(1024), "1 to 1024, or null"),
    ("runtime.workers", _up_to(256, least=0), "0 to 256"),
    ("runtime.image_memory_gb", _non_negative, "0 or more"),
    ("runtime.log_every_steps", _at_least_one, "1 or more"),
    ("checkpoint.every_minutes", _positive, "minutes above 0"),
    ("sweep.n_jobs", _up_to(1024), "1 to 1024"),
    ("sweep.max_heads", _up_to(65_536), "1 to 65536"),
    ("sweep.timeout", lambda value: 0 < value <= MOST_SECONDS, "seconds above 0 and up to 10^8, or null"),
    ("tracking.experiment_name", lambda value: bool(value.strip()), "a name"),
)

# Of Hydra's own configuration, which no run has: how a search goes about its jobs.
SWEEPER_RANGES: tuple[Check, ...] = (
    ("hydra.sweeper.num_trials", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.n_startup_trials", _up_to(1_000_000, least=0), "0 to 1000000"),
    ("hydra.sweeper.min_trials", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.min_epochs", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.seed", _up_to(MOST_SEED, least=0), "from 0 to 2^63 - 1"),
)


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where there is no such key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _key_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Typed nodes refuse unknown keys by themselves; at the top, `+key=value` would add what nothing reads."""
    known = {item.name for item in fields(Run)}
    return (unknown_key(key) for key in config if key not in known)


def _range_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, accepts, expected in (*RANGES, *SWEEPER_RANGES):
        value = lookup(config, key)
        if value is not None and not _holds(accepts, value):
            yield f"{key}={value}: expected {expected}"


def _holds(accepts: Callable[[Any], bool], value: Any) -> bool:
    """Whether a value is in its range; a list may hold anything, since its elements have no type."""
    try:
        return accepts(value)
    except (TypeError, OverflowError):
        return False


def _interpolation_problems(node: Any, path: str = "") -> Iterator[str]:
    """All is resolved by now; what still looks like an interpolation would be resolved when a group is built."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _interpolation_problems(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _interpolation_problems(child, f"{path}[{index}]")
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node}: interpolations have no effect here; expected the value itself"


def _cross_group_problems(config: Mapping[str, Any]) -> Iterator[str]:
    warmup = lookup(config, "scheduler.warmup_epochs")
    if warmup is not None and warmup >= config["epochs"] >= 1:
        yield f"scheduler.warmup_epochs={warmup}: expected less than epochs={config['epochs']}"
    follower = lookup(config, "optimizer.lr")
    if config["lr"] is None:
        yield "lr=None: expected a number above 0, or auto"
    elif follower is not None and str(follower) != str(config["lr"]) and _holds(_rate, config["lr"]):
        yield f"optimizer.lr={follower}: it follows lr, under which runs are compared; expected lr={follower} instead"
    probe = lookup(config, "strategy.probe_epochs")
    if None not in (warmup, probe) and warmup >= probe >= 1:
        yield f"scheduler.warmup_epochs={warmup}: expected less than strategy.probe_epochs={probe}, which has its own"
    if _trains_norms(config):
        yield from _batchnorm_problems(config)
    if lookup(config, "optimizer._target_").startswith("schedulefree."):
        yield from _schedule_free_problems(config)
    if "num_stages" in config["strategy"] and "train" in config["strategy"]:
        yield from _part_problems(config["strategy"])
    if lookup(config, "strategy.views") is not None:
        yield from _view_problems(config)
    least, most = lookup(config, "strategy.min_c"), lookup(config, "strategy.max_c")
    if least is not None and most is not None and least > most:
        yield f"strategy.min_c={least}: expected no more than strategy.max_c={most}"
    yield from _mixing_problems(config)
    if config["class_weights"] == "auto" and config["sampler"] == "balanced":
        yield "class_weights=auto: sampler=balanced makes up for rare classes already; expected one of the two"
    if lookup(config, "optimizer.nesterov") and not lookup(config, "optimizer.momentum"):
        yield "optimizer.nesterov=true: expected optimizer.momentum above 0"
    if lookup(config, "runtime.deterministic") and "bf16" in (
        lookup(config, "runtime.train_precision"),
        lookup(config, "runtime.infer_precision"),
    ):
        yield "runtime.deterministic=true: expected fp32 for runtime.train_precision and runtime.infer_precision"


def _mixing_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("mixup_alpha", "cutmix_alpha"):
        if config[key]:
            if config["batch_size"] == 1:
                yield f"{key}={config[key]}: a batch of one has nothing to be mixed with; expected batch_size above 1"
            if lookup(config, "strategy.views") is not None:
                yield f"{key}={config[key]}: images are mixed anew in every epoch; expected strategy.views=null"


def _batchnorm_problems(config: Mapping[str, Any]) -> Iterator[str]:
    if config["batch_size"] == 1:
        yield "batch_size=1: BatchNorm has nothing to normalise by; expected 2 or more, or strategy.batchnorm=eval"
    elif config["batch_size"] == 2 and config["accumulate_steps"] > 1:
        yield (
            "batch_size=2: the last step of an epoch may have a part of one image, and BatchNorm nothing to normalise "
            "by; expected 3 or more, accumulate_steps=1, or strategy.batchnorm=eval"
        )


def _schedule_free_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Defazio et al. 2024: the average that is evaluated takes the place of a schedule, from the first step on."""
    optimizer, scheduler = config["optimizer"]["_target_"], lookup(config, "scheduler._target_")
    if scheduler != CONSTANT:
        yield f"scheduler: {optimizer} goes without a schedule (Defazio et al. 2024); expected scheduler=constant"
    if config["ema_decay"] is not None:
        yield f"ema_decay={config['ema_decay']}: {optimizer} makes its own average; expected null"
    if _trains_norms(config):
        yield (
            f"strategy.batchnorm=train: the statistics would not be those of the average that {optimizer} evaluates; "
            "expected eval"
        )
    for key in ("strategy.probe_epochs", "strategy.every_epochs"):
        if lookup(config, key) is not None:
            yield f"{key}: {optimizer} makes one average from the first step on; expected a strategy of one phase"


def _trains_norms(config: Mapping[str, Any]) -> bool:
    """Whether BatchNorm normalises by the batch; what begins from random weights has no other way."""
    return lookup(config, "strategy.batchnorm") == "train" or lookup(config, "strategy._target_") == SCRATCH


def _part_problems(strategy: Mapping[str, Any]) -> Iterator[str]:
    num_stages, train = strategy["num_stages"], strategy["train"]
    if train is not None and num_stages is not None:
        patterns = f"[{', '.join(map(str, train))}]"
        yield (
            f"strategy.train={patterns}: strategy.num_stages={num_stages} says already what is trained; "
            "expected one of the two, as strategy.num_stages=null beside strategy.train"
        )
    if train is None and num_stages is None:
        yield "strategy: nothing says what is trained; expected strategy.num_stages=1, or strategy.train=[layer4.*]"


def _view_problems(config: Mapping[str, Any]) -> Iterator[str]:
    views, augmentation = config["strategy"]["views"], config["augmentation"]
    if config["strategy"].get("batchnorm") == "train":
        yield f"strategy.views={views}: features that are kept need strategy.batchnorm=eval"
    still = {"hflip_prob": 0, "rotation_degrees": 0, "scale": [1, 1], "ratio": [1, 1], "erase_prob": 0}
    has_policy = augmentation["_target_"] != PHOTOGRAPH
    if not has_policy and all(augmentation.get(key) == value for key, value in still.items()):
        yield f"strategy.views={views}: without augmentation all are the same; expected null, or augmentation=light"


def _place_problems(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    root = lookup(config, "dataset.root")
    downloads = lookup(config, "dataset.download")  # where it is a key, the dataset tells what is to be put there
    if root == "":
        yield "dataset.root is empty; expected a folder of images"
    elif root is not None and downloads is None and not Path(root).expanduser().is_dir():
        yield f"dataset.root={root}: no such folder; expected a folder of images (relative paths start at {Path.cwd()})"
    weights = lookup(config, "backbone.weights")
    own_code = not lookup(config, "backbone._target_").startswith(HOMES["backbone"])
    if weights not in (None, "default") and not own_code and not Path(weights).expanduser().is_file():
        yield f"backbone.weights={weights}: no such file; expected a file of tensors, default, or null"
    if not _writable(folder):
        yield f"{folder}: cannot be written to; expected a writable output folder (hydra.run.dir or hydra.sweep.dir)"
    uri = lookup(config, "tracking.uri") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if lookup(config, "tracking._target_") and uri.startswith(SQLITE):
        store = Path(uri.removeprefix(SQLITE)).absolute()
        if not _writable(store.parent):
            yield f"tracking.uri={uri}: {store.parent} cannot be written to; expected a folder for the database"


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def check_ranges(config: Mapping[str, Any]) -> None:
    """Raise one ConfigError that names every value out of its range; a node that is not there is not checked."""
    _raise(_range_problems(config))


def check_values(config: Mapping[str, Any]) -> None:
    """Raise one ConfigError that names every problem of a resolved, plain config that any machine would see.

    Args:
        config: nested plain containers, enums as their lower-case names.

    Raises:
        ConfigError: one line per problem.
    """
    _raise(_value_problems(config))


def check(config: Mapping[str, Any], *, folder: Path) -> None:
    """Raise one ConfigError that names every problem of a resolved, plain config, here and now.

    Args:
        config: nested plain containers, enums as their lower-case names.
        folder: where the run will write; it need not exist yet.

    Raises:
        ConfigError: one line per problem.
    """
    _raise(chain(_value_problems(config), _place_problems(config, folder)))


def _value_problems(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _key_problems(config)
    yield from _range_problems(config)
    yield from _cross_group_problems(config)
    yield from target_problems(config)
    yield from _interpolation_problems(config)


def _raise(problems: Iterable[str]) -> None:
    if told := "\n".join(problem.replace("\n", "\\n") for problem in problems):
        raise ConfigError(told)
