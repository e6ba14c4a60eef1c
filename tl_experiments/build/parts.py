"""The object of each group, and what beside the groups says how a run is trained."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.optim import Optimizer

from tl_experiments.build.targets import instantiate_group
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.ranges import AUTO
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.class_weights import class_weights, require_classes
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.mixing import Mixing
from tl_experiments.data.sampling import SAMPLERS, Sampler
from tl_experiments.data.shard_order import ByShards
from tl_experiments.data.source import Dataset
from tl_experiments.data.watch import UNWATCHED, Watch
from tl_experiments.engine.loss import Loss
from tl_experiments.engine.lr_finder import FIRST
from tl_experiments.engine.optimizers import OptimizerFactory
from tl_experiments.engine.rates import ScheduleFactory
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import HeadKind
from tl_experiments.runtime.typed_path import lasting_place
from tl_experiments.strategies.base import Strategy


def build_dataset(member: Member, *, watch: Watch = UNWATCHED) -> Dataset:
    """List the images; none is read yet, but to list those of shards that have no index.

    Args:
        member: names the dataset.
        watch: told where listing takes long.

    Raises:
        DataError: there are none to list.
        SettingError: a class that has a weight is none of the dataset's.
    """
    dataset, weights = instantiate_group(member, "dataset", offered={"watch": watch}), member.config["class_weights"]
    if isinstance(weights, Mapping):
        require_classes(weights, class_names=dataset.class_names)
    return dataset


def data_source(member: Member) -> str:
    """Where the dataset comes from: its folder, file or URL, or else its name."""
    root = member.config["dataset"].get("root")
    name = member.config["dataset"].get("name") or member.choices["dataset"]
    return lasting_place(root) if root else name


def build_backbone(member: Member, *, dataset: Dataset, strategy: Strategy) -> Backbone:
    """Build the network, with the weights that the strategy begins with."""
    if not strategy.pretrained:
        member = without_weights(member)
    return instantiate_group(member, "backbone", preferred_size=dataset.image_size, seed=member.config["seed"])


def without_weights(member: Member) -> Member:
    return replace(member, config={**member.config, "backbone": {**member.config["backbone"], "weights": None}})


def build_augmentation(member: Member, *, dataset: Dataset) -> Augmentation:
    return instantiate_group(member, "augmentation").resolved(mirror_safe=dataset.mirror_safe)


def sees_mirrors(member: Member, *, dataset: Dataset) -> bool:
    """Whether the test sees the mirror image of each image too.

    Raises:
        ConfigError: mirror images show other classes.
    """
    wanted = member.config["tta"] == "flip"
    if wanted and not dataset.mirror_safe:
        raise ConfigError(f"tta=flip: a mirror image of {dataset.name} may show another class; expected tta=none")
    return wanted


def build_mixing(member: Member) -> Mixing:
    return Mixing(mixup_alpha=member.config["mixup_alpha"], cutmix_alpha=member.config["cutmix_alpha"])


def sampler(member: Member, *, dataset: Dataset, images: DatasetImages) -> Sampler:
    """What chooses the training images of an epoch, and puts those of one shard near each other."""
    chosen, shards = SAMPLERS[member.config["sampler"]], images.train.shards
    if shards is None or dataset.shuffle_buffer is None:
        return chosen
    return ByShards(chosen, shards=shards, buffer=dataset.shuffle_buffer)


def build_head(member: Member) -> HeadKind:
    return instantiate_group(member, "head")


def build_loss(member: Member, *, dataset: Dataset, images: DatasetImages, device: torch.device) -> Loss:
    """Make what training minimises; weights of classes are counted over the training images that were read."""
    weights = class_weights(member.config["class_weights"], labels=images.train.labels, class_names=dataset.class_names)
    return Loss(
        label_smoothing=member.config["label_smoothing"],
        class_weights=None if weights is None else weights.to(device),
    )


def build_strategy(member: Member) -> Strategy:
    return instantiate_group(member, "strategy")


def build_optimizer(member: Member) -> OptimizerFactory:
    """Return an optimizer that lacks its parameters; it is tried on one, so that what it refuses is told early."""
    factory = instantiate_group(at_rate(member, FIRST) if seeks_rate(member) else member, "optimizer")
    target = member.config["optimizer"]["_target_"]
    try:
        tried = factory([_parameter()])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {target} refuses its values: {error}") from error
    if not isinstance(tried, Optimizer):
        raise ConfigError(f"optimizer._target_={target}: expected one of torch.optim's optimizers, or one like them")
    return factory


def seeks_rate(member: Member) -> bool:
    """Whether a range test is to find the member's lr; until then its optimizer has the test's first rate."""
    return member.config["lr"] == AUTO


def at_rate(member: Member, lr: float) -> Member:
    """Return the member with another lr."""
    optimizer = member.config["optimizer"]
    rate = {"lr": lr} if "lr" in optimizer else {}
    return replace(member, config={**member.config, "lr": lr, "optimizer": {**optimizer, **rate}})


def build_scheduler(member: Member) -> ScheduleFactory:
    """Return a schedule that lacks the optimizer and the number of steps; it is tried like the optimizer."""
    factory = instantiate_group(member, "scheduler")
    target = member.config["scheduler"]["_target_"]
    try:
        tried = factory(torch.optim.SGD([_parameter()], lr=1.0), total_steps=2, steps_per_epoch=1)
    except TypeError as error:
        raise ConfigError(f"scheduler: {target} cannot be called as a schedule is: {error}") from error
    if not isinstance(tried, Schedule):
        raise ConfigError(f"scheduler._target_={target}: expected what returns a Schedule, as in engine/schedulers.py")
    return factory


def _parameter() -> torch.Tensor:
    return torch.zeros(1, requires_grad=True)


def samples_per_step(member: Member) -> int:
    """How many samples one optimizer step sees, in parts of `batch_size`."""
    return member.config["batch_size"] * member.config["accumulate_steps"]
