"""Values that do not go together, of one group or of several."""

from collections.abc import Iterator, Mapping
from typing import Any

from tl_experiments.config.ranges import holds, is_rate, lookup

PHOTOGRAPH = "tl_experiments.data.augmentation.Augmentation"  # what others than this do is not told by its keys
FINETUNE = "tl_experiments.strategies.finetune.Finetune"
SCRATCH = "tl_experiments.strategies.scratch.Scratch"
HF = "tl_experiments.data.hub.hf_dataset"
CONSTANT = "tl_experiments.engine.schedulers.constant"


def rule_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each rule that a complete configuration breaks."""
    warmup = lookup(config, "scheduler.warmup_epochs")
    if warmup is not None and warmup >= config["epochs"] >= 1:
        yield f"scheduler.warmup_epochs={warmup}: expected less than epochs={config['epochs']}"
    follower = lookup(config, "optimizer.lr")
    if config["lr"] is None:
        yield "lr=None: expected a number above 0, or auto"
    elif follower is not None and str(follower) != str(config["lr"]) and holds(is_rate, config["lr"]):
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
    weights = lookup(config, "backbone.weights")
    if lookup(config, "strategy._target_") == SCRATCH and weights not in (None, "default"):
        yield f"backbone.weights={weights}: strategy=scratch begins with random weights; expected null or default"
    if lookup(config, "dataset._target_") == HF:
        yield from _hub_problems(config["dataset"])
    if config["class_weights"] == "auto" and config["sampler"] == "balanced":
        yield "class_weights=auto: sampler=balanced makes up for rare classes already; expected one of the two"
    if lookup(config, "optimizer.nesterov") and not lookup(config, "optimizer.momentum"):
        yield "optimizer.nesterov=true: expected optimizer.momentum above 0"
    if lookup(config, "runtime.fsdp"):
        yield from _sharding_problems(config)
    if lookup(config, "runtime.deterministic") and "bf16" in (
        lookup(config, "runtime.train_precision"),
        lookup(config, "runtime.infer_precision"),
    ):
        yield "runtime.deterministic=true: expected fp32 for runtime.train_precision and runtime.infer_precision"


def _sharding_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What each process would need whole."""
    if lookup(config, "strategy._target_") not in (FINETUNE, SCRATCH):
        yield "runtime.fsdp=true: shares of a backbone that is trained whole; expected strategy=finetune or scratch"
    expected = {"ema_decay": None, "clip_grad_norm": None, "strategy.l2_sp": 0.0}
    expected |= {"runtime.compile": False, "runtime.memory_format": "contiguous"}  # as shares have to be
    for key, value in expected.items():
        if lookup(config, key) not in (value, None):
            yield f"{key}={lookup(config, key)}: not with runtime.fsdp=true; expected {_typed(value)}"
    if lookup(config, "optimizer._target_").startswith("schedulefree."):
        yield "runtime.fsdp=true: expected one of torch.optim's optimizers"


def _typed(value: Any) -> str:
    return {None: "null", False: "false"}.get(value, str(value))


def _hub_problems(dataset: Mapping[str, Any]) -> Iterator[str]:
    if not dataset["name"] and not dataset["root"]:
        yield "dataset.name is missing; expected a name on the Hugging Face Hub, or a folder by dataset.root=PATH"
    elif dataset["name"] and dataset["root"]:
        yield f"dataset.name={dataset['name']}: dataset.root says already what is read; expected one of the two"
    elif dataset["revision"] and dataset["root"]:
        yield f"dataset.revision={dataset['revision']}: a folder has none; expected null"


def _mixing_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key in ("mixup_alpha", "cutmix_alpha"):
        if config[key]:
            if config["batch_size"] * config["accumulate_steps"] == 1:
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
    if (betas := lookup(config, "optimizer.betas")) and not betas[0]:
        yield f"optimizer.betas={betas}: {optimizer} divides by the first; expected it above 0"
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
