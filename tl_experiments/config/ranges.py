"""Which values a key may have, where its type does not say it."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

AUTO = "auto"  # lr: found by a range test when the run begins
MOST_SEED = 2**63 - 1
MOST_STEPS = 1_000_000_000
MOST_SECONDS = 1e8  # three years; threads cannot wait for ever

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


def _below_one(value: float) -> bool:
    return 0 <= value < 1


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


def is_rate(value: float | str) -> bool:
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
    ("lr", is_rate, "a number above 0, or auto"),
    ("epochs", _up_to(1_000_000), "1 to 1000000"),
    ("batch_size", _up_to(65_536), "1 to 65536"),
    ("seed", _up_to(MOST_SEED, least=0), "from 0 to 2^63 - 1"),
    ("label_smoothing", _below_one, "in [0, 1)"),
    ("class_weights", _class_weights, "auto, null, or numbers above 0 by the names of classes, as {cat: 2.0}"),
    ("mixup_alpha", _up_to_hundred, "0 to 100; 0 is off"),
    ("cutmix_alpha", _up_to_hundred, "0 to 100; 0 is off"),
    ("head.dropout", _below_one, "in [0, 1)"),
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
    ("strategy.dropout", _below_one, "in [0, 1)"),
    ("strategy.targets", _patterns, "one pattern or more, such as [*.qkv], or null"),
    ("strategy.every_epochs", _up_to(1_000_000), "1 to 1000000"),
    ("optimizer.weight_decay", _non_negative, "0 or more"),
    ("optimizer.momentum", _below_one, "in [0, 1)"),
    ("optimizer.alpha", _below_one, "in [0, 1)"),
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
    ("dataset.shuffle_buffer", _up_to(MOST_STEPS), "1 to 10^9 images"),
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
    ("runtime.rank_timeout", _positive, "seconds above 0"),
    ("checkpoint.every_minutes", _positive, "minutes above 0"),
    ("sweep.n_jobs", _up_to(1024), "1 to 1024"),
    ("sweep.max_heads", _up_to(65_536), "1 to 65536"),
    ("sweep.timeout", lambda value: 0 < value <= MOST_SECONDS, "seconds above 0 and up to 10^8, or null"),
    ("tracking.experiment_name", lambda value: bool(value.strip()), "a name"),
)

# Of Hydra's own configuration, which no run has: how a search goes about its jobs, and what they ask a cluster for.
HYDRA_RANGES: tuple[Check, ...] = (
    ("hydra.sweeper.num_trials", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.n_startup_trials", _up_to(1_000_000, least=0), "0 to 1000000"),
    ("hydra.sweeper.min_trials", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.min_epochs", _up_to(1_000_000), "1 to 1000000"),
    ("hydra.sweeper.seed", _up_to(MOST_SEED, least=0), "from 0 to 2^63 - 1"),
    ("hydra.launcher.num_cpus", _positive, "CPUs above 0"),
    ("hydra.launcher.num_gpus", _non_negative, "GPUs, 0 or more, or null"),
    ("hydra.launcher.memory_gb", _positive, "gigabytes above 0, or null"),
    ("hydra.launcher.max_retries", _up_to(1000, least=0), "0 to 1000"),
)


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where there is no such key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def range_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each value out of its range; a node that is not there is not checked."""
    for key, accepts, expected in (*RANGES, *HYDRA_RANGES):
        value = lookup(config, key)
        if value is not None and not holds(accepts, value):
            yield f"{key}={value}: expected {expected}"


def holds(accepts: Callable[[Any], bool], value: Any) -> bool:
    """Whether a value is in its range; a list may hold anything, since its elements have no type."""
    try:
        return accepts(value)
    except (TypeError, OverflowError):
        return False
