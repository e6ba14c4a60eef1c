"""The types of the configuration. Every field is MISSING here: its one default lives in `conf/`."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from omegaconf import MISSING


class BatchNorm(Enum):
    """Mode of the backbone's BatchNorm layers while training."""

    eval = "eval"
    train = "train"


class Precision(Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class MemoryFormat(Enum):
    auto = "auto"
    contiguous = "contiguous"
    channels_last = "channels_last"


class OnBadImage(Enum):
    """What is done about images that cannot be read or decoded."""

    error = "error"
    skip = "skip"


# Made by a call, because `continue` cannot be written as a name.
OnError = Enum("OnError", ["continue", "stop"])


class OnNonfinite(Enum):
    """What becomes of a run whose loss or gradient is not finite."""

    stop = "stop"
    skip = "skip"


class Sampling(Enum):
    """Which training images an epoch sees."""

    shuffle = "shuffle"
    balanced = "balanced"


class SearchSampler(Enum):
    """Who says what the next job of a search tries."""

    tpe = "tpe"
    random = "random"


class Pruner(Enum):
    """Who stops jobs of a search before their end."""

    none = "none"
    median = "median"
    hyperband = "hyperband"


class OnOom(Enum):
    """What becomes of a run for which the memory is too small."""

    error = "error"
    halve = "halve"


class Tta(Enum):
    """What the test sees of each image besides the image itself."""

    none = "none"
    flip = "flip"


@dataclass
class Run:
    """The root: the knobs that people sweep, one node per group, and how `-m` goes about it."""

    lr: Any = MISSING  # a number above 0, or auto
    epochs: int = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    label_smoothing: float = MISSING
    class_weights: Any = MISSING
    sampler: Sampling = MISSING
    mixup_alpha: float = MISSING
    cutmix_alpha: float = MISSING
    on_nonfinite: OnNonfinite = MISSING
    accumulate_steps: int = MISSING
    clip_grad_norm: float | None = MISSING
    ema_decay: float | None = MISSING
    early_stopping: Any = MISSING
    tta: Tta = MISSING
    resume: str | None = MISSING
    allow_targets: list[str] = MISSING
    backbone: Any = MISSING
    strategy: Any = MISSING
    head: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    dataset: Any = MISSING
    augmentation: Any = MISSING
    runtime: Any = MISSING
    tracking: Any = MISSING
    checkpoint: Any = MISSING
    sweep: Any = MISSING


@dataclass
class EarlyStopping:
    patience: int | None = MISSING


@dataclass
class Checkpoint:
    every_minutes: float = MISSING
    keep_when_finished: bool = MISSING


@dataclass
class Sweep:
    n_jobs: int = MISSING
    timeout: float | None = MISSING
    on_error: OnError = MISSING
    max_heads: int = MISSING
    dry_run: bool = MISSING
    resume: str | None = MISSING
    group: int | None = MISSING


@dataclass
class Backbone:
    _target_: str = MISSING
    name: str = MISSING
    weights: str | None = MISSING
    image_size: int | None = MISSING


@dataclass
class Feature:
    _target_: str = MISSING
    batchnorm: BatchNorm = MISSING
    views: int | None = MISSING


@dataclass
class Finetune:
    _target_: str = MISSING
    batchnorm: BatchNorm = MISSING
    backbone_lr_scale: float = MISSING
    layer_decay: float = MISSING
    l2_sp: float = MISSING


@dataclass
class Partial(Finetune):
    num_stages: int | None = MISSING
    train: list[str] | None = MISSING


@dataclass
class NormOnly(Finetune):
    pass


@dataclass
class BiasOnly(Finetune):
    pass


@dataclass
class LpFt(Finetune):
    probe_epochs: int = MISSING
    probe_lr_scale: float = MISSING


@dataclass
class Gradual(Finetune):
    every_epochs: int = MISSING


@dataclass
class Logistic:
    _target_: str = MISSING
    num_c: int = MISSING
    min_c: float = MISSING
    max_c: float = MISSING


@dataclass
class Knn:
    _target_: str = MISSING
    num_neighbours: list[int] = MISSING
    temperature: float = MISSING


@dataclass
class Lora:
    _target_: str = MISSING
    rank: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    targets: list[str] | None = MISSING
    backbone_lr_scale: float = MISSING


@dataclass
class Scratch:
    _target_: str = MISSING


@dataclass
class LinearHead:
    _target_: str = MISSING
    dropout: float = MISSING


@dataclass
class MlpHead(LinearHead):
    hidden_dim: int = MISSING


@dataclass
class CosineHead(LinearHead):
    scale: float = MISSING
    learn_scale: bool = MISSING


@dataclass
class AdamW:
    _target_: str = MISSING
    _partial_: bool = MISSING
    lr: Any = MISSING
    weight_decay: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING


@dataclass
class Adam(AdamW):
    pass


@dataclass
class SGD:
    _target_: str = MISSING
    _partial_: bool = MISSING
    lr: Any = MISSING
    weight_decay: float = MISSING
    momentum: float = MISSING
    nesterov: bool = MISSING


@dataclass
class RMSprop:
    _target_: str = MISSING
    _partial_: bool = MISSING
    lr: Any = MISSING
    weight_decay: float = MISSING
    momentum: float = MISSING
    alpha: float = MISSING
    eps: float = MISSING


@dataclass
class ScheduleFreeAdamW(AdamW):
    warmup_steps: int = MISSING


@dataclass
class ScheduleFreeSGD:
    _target_: str = MISSING
    _partial_: bool = MISSING
    lr: Any = MISSING
    weight_decay: float = MISSING
    momentum: float = MISSING
    warmup_steps: int = MISSING


@dataclass
class Cosine:
    _target_: str = MISSING
    _partial_: bool = MISSING
    warmup_epochs: float = MISSING
    min_lr_fraction: float = MISSING


@dataclass
class Step:
    _target_: str = MISSING
    _partial_: bool = MISSING
    step_size: int = MISSING
    gamma: float = MISSING


@dataclass
class Constant:
    _target_: str = MISSING
    _partial_: bool = MISSING


@dataclass
class OneCycle:
    _target_: str = MISSING
    _partial_: bool = MISSING
    pct_start: float = MISSING
    div_factor: float = MISSING
    final_div_factor: float = MISSING


@dataclass
class Plateau:
    _target_: str = MISSING
    _partial_: bool = MISSING
    factor: float = MISSING
    patience: int = MISSING


@dataclass
class Digits:
    _target_: str = MISSING
    train_size: int | float | None = MISSING
    val_fraction: float = MISSING
    split_seed: int = MISSING
    image_size: int = MISSING
    crop_pct: float = MISSING


@dataclass
class Torchvision:
    _target_: str = MISSING
    name: str = MISSING
    root: str = MISSING
    download: bool = MISSING
    train_size: int | float | None = MISSING
    val_fraction: float = MISSING
    split_seed: int = MISSING
    crop_pct: float | None = MISSING


@dataclass
class ImageFolder:
    _target_: str = MISSING
    root: str = MISSING
    train_size: int | float | None = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING
    split_seed: int = MISSING
    crop_pct: float | None = MISSING
    follow_links: bool = MISSING
    on_bad_image: OnBadImage = MISSING


@dataclass
class WebDataset:
    _target_: str = MISSING
    root: str = MISSING
    shuffle_buffer: int = MISSING
    train_size: int | float | None = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING
    split_seed: int = MISSING
    crop_pct: float | None = MISSING
    on_bad_image: OnBadImage = MISSING


@dataclass
class HuggingFace(ImageFolder):
    root: str | None = MISSING
    name: str | None = MISSING
    subset: str | None = MISSING
    revision: str | None = MISSING
    image_column: str | None = MISSING
    label_column: str | None = MISSING


@dataclass
class Augmentation:
    _target_: str = MISSING
    hflip_prob: float | None = MISSING
    rotation_degrees: float = MISSING
    scale: list[float] = MISSING
    ratio: list[float] = MISSING
    erase_prob: float = MISSING


@dataclass
class RandAugment(Augmentation):
    num_ops: int = MISSING
    magnitude: int = MISSING


@dataclass
class Runtime:
    device: str = MISSING
    train_precision: Precision = MISSING
    infer_precision: Precision = MISSING
    memory_format: MemoryFormat = MISSING
    infer_batch_size: int | None = MISSING
    fused: bool = MISSING
    compile: bool = MISSING
    threads: int | None = MISSING
    workers: int = MISSING
    deterministic: bool = MISSING
    image_memory_gb: float = MISSING
    cache: bool = MISSING
    on_oom: OnOom = MISSING
    log_every_steps: int = MISSING
    fsdp: bool = MISSING
    rank_timeout: float = MISSING


@dataclass
class Tracking:
    _target_: str = MISSING
    uri: str | None = MISSING
    experiment_name: str = MISSING


@dataclass
class NoTracking:
    _target_: str = MISSING


@dataclass
class OptunaSweeper:
    _target_: str = MISSING
    num_trials: int = MISSING
    sampler: SearchSampler = MISSING
    n_startup_trials: int = MISSING
    pruner: Pruner = MISSING
    min_trials: int = MISSING
    min_epochs: int = MISSING
    seed: int = MISSING
    params: Any = MISSING


@dataclass
class RayLauncher:
    _target_: str = MISSING
    num_cpus: float = MISSING
    num_gpus: float | None = MISSING
    memory_gb: float | None = MISSING
    max_retries: int = MISSING
    autoscales: bool = MISSING
    timeout: float | None = MISSING
    runtime_env: Any = MISSING


# Option name in the `schema` group -> dataclass, of what is part of Hydra's own configuration.
OF_HYDRA: dict[str, type] = {"hydra/sweeper/optuna": OptunaSweeper, "hydra/launcher/ray": RayLauncher}

# Option name in the `schema` group -> dataclass.
SCHEMAS: dict[str, type] = {
    "run": Run,
    "backbone": Backbone,
    "strategy/feature": Feature,
    "strategy/finetune": Finetune,
    "strategy/partial": Partial,
    "strategy/norm_only": NormOnly,
    "strategy/bias_only": BiasOnly,
    "strategy/lp_ft": LpFt,
    "strategy/gradual": Gradual,
    "strategy/logistic": Logistic,
    "strategy/knn": Knn,
    "strategy/lora": Lora,
    "strategy/scratch": Scratch,
    "head/linear": LinearHead,
    "head/mlp": MlpHead,
    "head/cosine": CosineHead,
    "optimizer/adamw": AdamW,
    "optimizer/adam": Adam,
    "optimizer/sgd": SGD,
    "optimizer/rmsprop": RMSprop,
    "optimizer/schedulefree_adamw": ScheduleFreeAdamW,
    "optimizer/schedulefree_sgd": ScheduleFreeSGD,
    "scheduler/cosine": Cosine,
    "scheduler/step": Step,
    "scheduler/constant": Constant,
    "scheduler/onecycle": OneCycle,
    "scheduler/plateau": Plateau,
    "dataset/digits": Digits,
    "dataset/torchvision": Torchvision,
    "dataset/image_folder": ImageFolder,
    "dataset/table": ImageFolder,
    "dataset/hf": HuggingFace,
    "dataset/webdataset": WebDataset,
    "augmentation": Augmentation,
    "augmentation/randaugment": RandAugment,
    "runtime": Runtime,
    "tracking/mlflow": Tracking,
    "tracking/none": NoTracking,
    "early_stopping": EarlyStopping,
    "checkpoint": Checkpoint,
    "sweep": Sweep,
}
