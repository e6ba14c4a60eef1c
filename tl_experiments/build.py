"""From a checked configuration to objects: the only file that instantiates what a configuration names."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from inspect import isfunction
from pathlib import Path
from typing import Any, get_type_hints

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch.optim import Optimizer

from tl_experiments.config.checks import AUTO, lookup
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.targets import HOMES, allowed_prefixes
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.canvas_store import canvas_store
from tl_experiments.data.check_store import check_store
from tl_experiments.data.class_weights import class_weights, require_classes
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.mixing import Mixing
from tl_experiments.data.sampling import SAMPLERS, Sampler
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import make_canvas
from tl_experiments.data.watch import Watch
from tl_experiments.engine.bank_rules import read_settings
from tl_experiments.engine.checkpoint import Checkpoints
from tl_experiments.engine.loss import PLAIN, Loss
from tl_experiments.engine.lr_finder import FIRST
from tl_experiments.engine.optimizers import OptimizerFactory
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.rates import ScheduleFactory
from tl_experiments.engine.schedulers import Schedule
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import HeadKind
from tl_experiments.runtime.disk import disk_told
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.memory import memory_told
from tl_experiments.runtime.precision import Compute, choose
from tl_experiments.runtime.process import process_context
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.tracking.params import OF_STEPS, as_text
from tl_experiments.tracking.run_log import RunLog
from tl_experiments.tracking.run_record import RunRecord
from tl_experiments.tracking.tracker import Tracker

# Group -> what its target makes, if it is one of ours or PyTorch's.
MADE: dict[str, type] = {
    "backbone": Backbone,
    "strategy": Strategy,
    "head": HeadKind,
    "optimizer": Optimizer,
    "scheduler": Schedule,
    "dataset": Dataset,
    "augmentation": Augmentation,
    "tracking": Tracker,
}


def _build(member: Member, group: str, **arguments: Any) -> Any:
    """Call what a group's `_target_` names with the group's values and what only the code knows."""
    node = member.config[group]
    _check_target(member, group, supplied=arguments)
    try:
        return instantiate(node, **arguments, _convert_="all", _recursive_=False)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None  # what went wrong in there says it best


def _check_target(member: Member, group: str, *, supplied: Mapping[str, Any]) -> None:
    """Find the target, see where it lives, what it makes, and that it takes the keys; raises ConfigError.

    An allowed prefix is not enough: `tl_experiments.models.x.os.system` begins well and ends elsewhere, and
    `torch.optim.swa_utils.update_bn` ends well but is no optimizer.
    """
    node = member.config[group]
    target = node["_target_"]
    try:
        found = get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{group}._target_={target}: there is no such thing to call") from error
    home = f"{getattr(found, '__module__', None)}."
    if not home.startswith(allowed_prefixes(group, member.config)):
        raise ConfigError(f"{group}._target_={target}: leads to {home.rstrip('.')}, which is not allowed")
    if home.startswith(HOMES[group]) and not _makes(found, MADE[group]):
        raise ConfigError(f"{group}._target_={target}: expected what makes {MADE[group].__name__}")
    keys = {key: value for key, value in node.items() if not key.startswith("_")}
    try:
        signature = inspect.signature(found)
        (signature.bind_partial if node.get("_partial_") else signature.bind)(**keys, **supplied)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{group}: {target} does not take the keys that are given: {error}") from error


def _makes(found: Any, kind: type) -> bool:
    """Whether something is a class of that kind, or a function that says that it returns one."""
    made = found if isinstance(found, type) else get_type_hints(found).get("return") if isfunction(found) else None
    if not isinstance(made, type):
        return False
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(made, name) for name in vars(kind) if not name.startswith("_"))
    return issubclass(made, kind)


def build_dataset(member: Member) -> Dataset:
    """List the images; none is read yet.

    Raises:
        DataError: there are none to list.
        SettingError: a class that has a weight is none of the dataset's.
    """
    dataset, weights = _build(member, "dataset"), member.config["class_weights"]
    if isinstance(weights, Mapping):
        require_classes(weights, class_names=dataset.class_names)
    return dataset


def data_source(member: Member) -> str:
    """Where the dataset comes from: its folder, or its name where it is embedded."""
    root = member.config["dataset"].get("root")
    return str(Path(root).expanduser().absolute()) if root else member.choices["dataset"]


def build_backbone(member: Member, *, dataset: Dataset, strategy: Strategy) -> Backbone:
    """Build the network, with the weights that the strategy begins with."""
    if not strategy.pretrained:
        member = _without_weights(member)
    return _build(member, "backbone", preferred_size=dataset.image_size, seed=member.config["seed"])


def _without_weights(member: Member) -> Member:
    return replace(member, config={**member.config, "backbone": {**member.config["backbone"], "weights": None}})


def build_augmentation(member: Member, *, dataset: Dataset) -> Augmentation:
    return _build(member, "augmentation").resolved(mirror_safe=dataset.mirror_safe)


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


def sampler(member: Member) -> Sampler:
    """What chooses the training images of an epoch."""
    return SAMPLERS[member.config["sampler"]]


def build_head(member: Member) -> HeadKind:
    return _build(member, "head")


def build_loss(member: Member, *, dataset: Dataset, images: DatasetImages, device: torch.device) -> Loss:
    """Make what training minimises; weights of classes are counted over the training images that were read."""
    weights = class_weights(member.config["class_weights"], labels=images.train.labels, class_names=dataset.class_names)
    return Loss(
        label_smoothing=member.config["label_smoothing"],
        class_weights=None if weights is None else weights.to(device),
    )


def build_strategy(member: Member) -> Strategy:
    return _build(member, "strategy")


def build_optimizer(member: Member) -> OptimizerFactory:
    """Return an optimizer that lacks its parameters; it is tried on one, so that what it refuses is told early."""
    factory = _build(at_rate(member, FIRST) if seeks_rate(member) else member, "optimizer")
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
    factory = _build(member, "scheduler")
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


def build_tracker(member: Member) -> Tracker:
    """Make what records the member's run; the store is touched when it is entered."""
    return _build(
        member,
        "tracking",
        run_name=member.name,
        uid=member.uid,
        parent_uid=member.sweep_id,
        folder=member.folder,
        tags={"tl.kind": "run"} | ({"tl.sweep_id": member.sweep_id} if member.sweep_id else {}),
    )


def build_sweep_tracker(member: Member, *, name: str, folder: Path) -> Tracker:
    """Make what records the run of the member's sweep, in the same place as the member's own."""
    if member.sweep_id is None:
        raise ValueError(f"{member.name} is not part of a sweep")
    tags = {"tl.kind": "sweep", "tl.sweep_id": member.sweep_id, "tl.run_dir": str(folder)}
    return _build(member, "tracking", run_name=name, uid=member.sweep_id, parent_uid=None, folder=folder, tags=tags)


def build_log(member: Member, *, index: int, num_members: int) -> RunLog:
    """Make a member's record; nothing is written before it is entered.

    Args:
        member: whose record.
        index: of the member on the leading axis of records.
        num_members: on this axis.
    """
    record = RunRecord(
        uid=member.uid,
        name=member.name,
        choices=member.choices,
        sweep_id=member.sweep_id,
        began=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    return RunLog(
        record=record,
        folder=member.folder,
        member=index,
        num_members=num_members,
        tracker=build_tracker(member),
        changed=member.changed,
    )


@contextmanager
def build_lack_notice(member: Member, *, backbone: Backbone) -> Iterator[None]:
    """Make what says in one line that memory or the disk is too small, and what it was needed for."""
    size = backbone.input_spec.size
    with memory_told(batch_size=member.config["batch_size"], image_size=size, backbone=backbone.name), disk_told():
        yield


def build_checkpoints(
    member: Member, *, logs: Sequence[RunLog], dataset: Dataset, backbone: Backbone, watch: Watch
) -> Checkpoints:
    """Make the checkpoints of all members that train together; nothing is read or written yet.

    Args:
        member: the first of them.
        logs: of all, identified.
        dataset, backbone: what makes a checkpoint readable by itself: class names and input.
        watch: told of trouble.
    """
    return Checkpoints(
        (member.host or member.folder) / "checkpoints",
        identity={log.uid: log.identity for log in logs},
        description={"class_names": dataset.class_names, "input": asdict(backbone.input_spec)},
        every_seconds=60 * member.config["checkpoint"]["every_minutes"],
        notice=watch.notice,
    )


def check_buildable(member: Member) -> None:
    """Build what costs nothing, and see that the rest could be called with what it is given.

    Raises:
        ConfigError: a target does not exist, is not allowed, or refuses its values.
        SettingError: the address of the tracking store cannot be one.
    """
    strategy = build_strategy(member)
    _check_options(member, strategy)
    build_head(member)
    build_optimizer(member)
    build_scheduler(member)
    build_tracker(member)
    _check_strategy(strategy, member)
    for group, supplied in (("dataset", {}), ("augmentation", {}), ("backbone", {"preferred_size": None, "seed": 0})):
        _check_target(member, group, supplied=supplied)


def _check_options(member: Member, strategy: Strategy) -> None:
    """See that nothing was asked of gradient steps where none are taken."""
    if strategy.takes_steps:
        return
    name = member.choices["strategy"]
    if (head := member.choices["head"]) != "linear":
        raise ConfigError(f"head={head}: strategy={name} has a head of its own; expected head=linear")
    if dropout := member.config["head"]["dropout"]:
        raise ConfigError(f"head.dropout={dropout}: strategy={name} takes no gradient steps; expected head.dropout=0")
    for key, value in OF_STEPS.items():
        if (asked := lookup(member.config, key)) != value:
            raise ConfigError(
                f"{key}={asked}: strategy={name} takes no gradient steps, for which it is; "
                f"expected {key}={as_text(value)}"
            )


def _check_strategy(strategy: Strategy, member: Member) -> None:
    """See that the backbone allows what the strategy wants of it, on a sketch that holds no weights."""

    @cache
    def sketch() -> Backbone:
        with torch.device("meta"):
            return _build(_without_weights(member), "backbone", preferred_size=None, seed=0)

    try:
        strategy.check(sketch)
    except SettingError as error:
        raise ConfigError(str(error)) from error


def shares_cpu(member: Member) -> bool:
    """Whether the member computes on the CPU with as many threads as there are cores."""
    runtime = member.config["runtime"]
    on_cpu = runtime["device"] == "cpu" or (runtime["device"] == "auto" and not torch.cuda.is_available())
    return on_cpu and runtime["threads"] is None


def bank_rule(member: Member) -> str | None:
    """Name the rule by which the member's head can be trained beside others; None where it is trained alone.

    It needs features that are computed once, an optimizer whose rule updates many heads at once, and a known rate.
    """
    if seeks_rate(member):
        return None
    strategy, augmentation = build_strategy(member), _build(member, "augmentation")
    kind, _ = read_settings(build_optimizer(member))
    joins = strategy.trains_bank(augmentation) and build_head(member).joins_bank and not build_mixing(member).is_on
    return kind.__name__ if kind is not None and joins else None


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


def _crop_pct(dataset: Dataset, backbone: Backbone) -> float:
    """The share of the shorter side that is kept: the dataset's own, or else what the weights were tested with."""
    return dataset.crop_pct or backbone.input_spec.crop_pct


def keeps_features(member: Member, *, strategy: Strategy, augmentation: Augmentation, watch: Watch) -> bool:
    """Whether features are kept from run to run: those of code of one's own are not, as no key shows its changes.

    Args:
        member: names the code.
        strategy, augmentation: tell whether there are features at all.
        watch: told where they are not kept although that is wanted.
    """
    wanted = member.config["runtime"]["cache"]
    targets = [member.config[group]["_target_"] for group in ("backbone", "augmentation")]
    own = [target for target in targets if not target.startswith("tl_experiments.")]
    if wanted and own and strategy.uses_features(augmentation) and not build_mixing(member).is_on:
        watch.notice(f"features are not kept: no cache key would show that {' or '.join(own)} was changed")
    return wanted and not own


def memory_bytes(member: Member) -> int:
    """What decoded images may take in memory; and on the device what activations may."""
    return round(member.config["runtime"]["image_memory_gb"] * 1e9)


def build_images(member: Member, *, dataset: Dataset, backbone: Backbone, watch: Watch) -> DatasetImages:
    """Read and check the dataset, to be decoded for the backbone's input."""
    runtime, spec = member.config["runtime"], backbone.input_spec
    canvas = make_canvas(size=spec.size, crop_pct=_crop_pct(dataset, backbone), interpolation=spec.interpolation)
    return load_dataset_images(
        dataset,
        canvas=canvas,
        workers=runtime["workers"],
        memory_bytes=memory_bytes(member),
        store=canvas_store(canvas, notice=watch.notice) if runtime["cache"] else None,
        checks=check_store(notice=watch.notice) if runtime["cache"] and dataset.files else None,
        watch=watch,
    )


def build_trainer(
    members: Sequence[Member], workload: Workload, *, loss: Loss = PLAIN, device: torch.device
) -> Trainer:
    shared, runtime = members[0].config, members[0].config["runtime"]
    updates = make_updates(
        workload.groups,
        optimizers=[build_optimizer(member) for member in members],
        schedulers=[build_scheduler(member) for member in members],
        fused=runtime["fused"],
        clip_grad_norm=shared["clip_grad_norm"],
    )
    options = TrainingOptions(
        loss=loss,
        seed=shared["seed"],
        log_every_steps=runtime["log_every_steps"],
        compile=runtime["compile"],
        skips_nonfinite=shared["on_nonfinite"] == "skip",
        halves=runtime["on_oom"] == "halve",
        micro_batch=shared["batch_size"] if shared["accumulate_steps"] > 1 else None,
        ema_decay=shared["ema_decay"],
        patience=shared["early_stopping"]["patience"],
    )
    return Trainer(workload, updates=updates, device=device, options=options)


def samples_per_step(member: Member) -> int:
    """How many samples one optimizer step sees, in parts of `batch_size`."""
    return member.config["batch_size"] * member.config["accumulate_steps"]


def _absolute_root(member: Member) -> dict[str, str]:
    """Where the images are, whatever folder a run goes on from; nothing where they are embedded."""
    return {"root": data_source(member)} if member.config["dataset"].get("root") else {}


def resolved_config(
    member: Member,
    *,
    strategy: Strategy,
    compute: Compute,
    backbone: Backbone,
    dataset: Dataset,
    augmentation: Augmentation,
) -> dict[str, Any]:
    """Return the configuration with every `auto`, and every null that means "decide for me", as it was decided."""
    runtime = member.config["runtime"] | {
        "device": str(compute.device),
        "threads": torch.get_num_threads(),
        "train_precision": compute.train.name,
        "infer_precision": compute.infer.name,
        "memory_format": compute.layout,
        "infer_batch_size": compute.infer_batch_size,
    }
    weights = {} if strategy.pretrained else {"weights": None}
    return member.config | {
        "runtime": runtime,
        "backbone": member.config["backbone"] | {"image_size": backbone.input_spec.size} | weights,
        "dataset": member.config["dataset"] | _absolute_root(member) | {"crop_pct": _crop_pct(dataset, backbone)},
        "augmentation": member.config["augmentation"] | {"hflip_prob": augmentation.hflip_prob},
    }
