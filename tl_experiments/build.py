"""From a checked configuration to objects: the only file that instantiates what a configuration names."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from tl_experiments.config.checks import allowed_prefixes
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import make_canvas
from tl_experiments.engine.optimizers import OptimizerFactory
from tl_experiments.engine.trainer import ScheduleFactory, Trainer
from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.precision import Compute, choose
from tl_experiments.runtime.process import process_context
from tl_experiments.strategies.base import Strategy, Watch, Workload
from tl_experiments.tracking.run_log import RunLog, make_uid


def _build(member: Member, group: str, **arguments: Any) -> Any:
    """Call what a group's `_target_` names with the group's values and what only the code knows."""
    node = member.config[group]
    target = node["_target_"]
    _check_target(target, group=group, prefixes=allowed_prefixes(member.config))
    try:
        return instantiate(node, **arguments, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError):
            raise _misfit(group, target, error.__cause__) from error
        raise


def _check_target(target: str, *, group: str, prefixes: tuple[str, ...]) -> None:
    """An allowed prefix is not enough: `tl_experiments.x.os.system` begins well and ends elsewhere."""
    try:
        home = f"{getattr(get_object(target), '__module__', None)}."
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{group}._target_={target}: there is no such thing to call") from error
    if not home.startswith(prefixes):
        raise ConfigError(f"{group}._target_={target}: leads to {home.rstrip('.')}, which is not allowed")


def _misfit(group: str, target: str, error: TypeError) -> ConfigError:
    """A target that cannot be called with the keys of its group."""
    return ConfigError(f"{group}: {target} does not take the keys that are given: {error}")


def build_dataset(member: Member) -> Dataset:
    """List the images; none is read yet."""
    return _build(member, "dataset")


def data_source(member: Member) -> str:
    """Where the dataset comes from: its folder, or its name where it is embedded."""
    root = member.config["dataset"].get("root")
    return str(Path(root).expanduser().absolute()) if root else member.choices["dataset"]


def build_backbone(member: Member, *, dataset: Dataset) -> Backbone:
    return _build(member, "backbone", preferred_size=dataset.image_size, seed=member.config["seed"])


def build_augmentation(member: Member, *, dataset: Dataset) -> Augmentation:
    return _build(member, "augmentation").resolved(mirror_safe=dataset.mirror_safe)


def build_strategy(member: Member) -> Strategy:
    return _build(member, "strategy")


def build_optimizer(member: Member) -> OptimizerFactory:
    """Return an optimizer that lacks its parameters; it is tried on one, so that what it refuses is told early."""
    factory = _build(member, "optimizer")
    try:
        tried = factory([torch.zeros(1, requires_grad=True)])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {member.config['optimizer']['_target_']} refuses its keys: {error}") from error
    if not isinstance(tried, torch.optim.Optimizer):
        raise ConfigError(f"optimizer._target_={member.config['optimizer']['_target_']}: expected an optimizer")
    return factory


def build_scheduler(member: Member) -> ScheduleFactory:
    """Return a schedule that lacks the optimizer and the number of steps."""
    return _build(member, "scheduler")


def build_log(member: Member, *, index: int) -> RunLog:
    """Make a member's record; nothing is written before it is entered.

    Args:
        member: whose record.
        index: of the member on the leading axis of records.
    """
    uid = make_uid()
    tags = {"tl.kind": "run"} | ({"tl.sweep_id": member.sweep_id} if member.sweep_id else {})
    tracker = _build(member, "tracking", run_name=member.name, uid=uid, tags=tags)
    return RunLog(name=member.name, folder=member.folder, member=index, uid=uid, tracker=tracker)


def build_process(member: Member) -> AbstractContextManager[torch.device]:
    runtime = member.config["runtime"]
    return process_context(device=runtime["device"], threads=runtime["threads"], deterministic=runtime["deterministic"])


def build_compute(member: Member, *, device: torch.device, backbone: Backbone, strategy: Strategy) -> Compute:
    """Decide what `auto` means here."""
    runtime = member.config["runtime"]
    return choose(
        device=device,
        backbone=backbone.name,
        image_size=backbone.input_spec.size,
        trains_backbone=strategy.trains_backbone,
        train_precision=runtime["train_precision"],
        infer_precision=runtime["infer_precision"],
        memory_format=runtime["memory_format"],
        infer_batch_size=runtime["infer_batch_size"],
    )


def build_images(member: Member, *, dataset: Dataset, backbone: Backbone, watch: Watch) -> DatasetImages:
    """Decode the dataset for the backbone's input; the dataset's own crop comes first."""
    runtime, spec = member.config["runtime"], backbone.input_spec
    return load_dataset_images(
        dataset,
        canvas=make_canvas(
            size=spec.size,
            crop_pct=dataset.crop_pct or spec.crop_pct,
            interpolation=spec.interpolation,
        ),
        workers=runtime["workers"],
        memory_bytes=round(runtime["image_memory_gb"] * 1e9),
        work=watch.work,
    )


def build_trainer(
    member: Member,
    workload: Workload,
    *,
    optimizer: OptimizerFactory,
    scheduler: ScheduleFactory,
    device: torch.device,
) -> Trainer:
    runtime = member.config["runtime"]
    return Trainer(
        workload,
        optimizer=optimizer,
        scheduler=scheduler,
        seed=member.config["seed"],
        device=device,
        log_every_steps=runtime["log_every_steps"],
        compile=runtime["compile"],
    )


def resolved_config(
    member: Member, *, compute: Compute, backbone: Backbone, augmentation: Augmentation
) -> dict[str, Any]:
    """Return the configuration with all that was left to be decided (`auto`, null) replaced by what it came to."""
    runtime = member.config["runtime"] | {
        "device": str(compute.device),
        "threads": torch.get_num_threads(),
        "train_precision": compute.train.name,
        "infer_precision": compute.infer.name,
        "memory_format": compute.layout,
        "infer_batch_size": compute.infer_batch_size,
    }
    return member.config | {
        "runtime": runtime,
        "backbone": member.config["backbone"] | {"image_size": backbone.input_spec.size},
        "augmentation": member.config["augmentation"] | {"hflip_prob": augmentation.hflip_prob},
    }
