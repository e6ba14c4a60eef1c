"""What a run stands on: its data, its backbone and where it computes; and what is trained on that."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from tl_experiments.build.parts import (
    build_augmentation,
    build_backbone,
    build_dataset,
    build_head,
    build_loss,
    build_mixing,
    build_optimizer,
    build_scheduler,
    build_strategy,
    data_source,
    sampler,
    samples_per_step,
    sees_mirrors,
)
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.canvas_store import canvas_store
from tl_experiments.data.check_store import check_store
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import make_canvas
from tl_experiments.data.watch import Watch
from tl_experiments.engine.lr_finder import MakeTrainer
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.rates import ScheduleFactory
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import Updates, make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.place import Place, open_place
from tl_experiments.runtime.precision import Compute, choose
from tl_experiments.runtime.process import describe_device
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.runtime.share import WHOLE, Share
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.materials import Materials


def build_place(member: Member) -> AbstractContextManager[Place]:
    """Make what sets up where the member is trained, under torchrun with other processes."""
    runtime = member.config["runtime"]
    return open_place(
        device=runtime["device"],
        threads=runtime["threads"],
        deterministic=runtime["deterministic"],
        rank_timeout=runtime["rank_timeout"],
    )


def build_compute(member: Member, *, place: Place, backbone: Backbone, strategy: Strategy) -> Compute:
    """Decide what `auto` means here."""
    runtime = member.config["runtime"]
    compute = choose(
        device=place.device,
        backbone=backbone.name,
        image_size=backbone.input_spec.size,
        trains_backbone=strategy.trains_backbone,
        learns_from_features=strategy.learns_from_features,
        train_precision=runtime["train_precision"],
        infer_precision=runtime["infer_precision"],
        memory_format=runtime["memory_format"],
        infer_batch_size=runtime["infer_batch_size"],
    )
    return replace(compute, ranks=place.ranks, shards=runtime["fsdp"] and not place.ranks.is_alone)


def _crop_pct(dataset: Dataset, backbone: Backbone) -> float:
    """The share of the shorter side that is kept: the dataset's own, or else what the weights were tested with."""
    return dataset.crop_pct or backbone.input_spec.crop_pct


def keeps_features(member: Member, *, strategy: Strategy, watch: Watch) -> bool:
    """Whether features are kept from run to run: those of code of one's own are not, as no key shows its changes.

    Args:
        member: names the code.
        strategy: tells whether there are features at all.
        watch: told where they are not kept although that is wanted.
    """
    wanted = member.config["runtime"]["cache"]
    targets = [member.config[group]["_target_"] for group in ("backbone", "augmentation")]
    own = [target for target in targets if not target.startswith("tl_experiments.")]
    if wanted and own and strategy.learns_from_features:
        watch.notice(f"features are not kept: no cache key would show that {' or '.join(own)} was changed")
    return wanted and not own


def memory_bytes(member: Member) -> int:
    """What decoded images may take in memory; and on the device what activations may."""
    return round(member.config["runtime"]["image_memory_gb"] * 1e9)


def build_images(
    member: Member,
    *,
    dataset: Dataset,
    backbone: Backbone,
    watch: Watch,
    share: Share = WHOLE,
    ranks: Ranks = ALONE,
) -> DatasetImages:
    """Read and check the dataset, or a share of it, to be decoded for the backbone's input, which ranks do together."""
    runtime, spec = member.config["runtime"], backbone.input_spec
    canvas = make_canvas(size=spec.size, crop_pct=_crop_pct(dataset, backbone), interpolation=spec.interpolation)
    return load_dataset_images(
        dataset,
        canvas=canvas,
        workers=runtime["workers"],
        memory_bytes=memory_bytes(member),
        store=canvas_store(canvas, notice=watch.notice, share=share if ranks.is_alone else ranks.share)
        if runtime["cache"]
        else None,
        checks=check_store(notice=watch.notice, share=share) if runtime["cache"] and dataset.files else None,
        watch=watch,
        share=share,
    )


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What members that train together stand on.

    Attributes:
        strategy: theirs.
        dataset: listed.
        augmentation: decided for the dataset.
        mirrors: whether the test sees mirror images too.
        backbone: with the weights that the strategy begins with.
        compute: where and how.
        images: read.
    """

    strategy: Strategy
    dataset: Dataset
    augmentation: Augmentation
    mirrors: bool
    backbone: Backbone
    compute: Compute
    images: DatasetImages


def build_ground(member: Member, *, who: str, place: Place, watch: Watch, share: Share = WHOLE) -> Ground:
    """Build what members that train together share; it is said who trains on what before images are read.

    Args:
        member: one of them.
        who: they are.
        place: they train in.
        watch: told of it.
        share: of the images, which is read.

    Raises:
        UserError: data, weights or settings cannot be used.
    """
    strategy, dataset = build_strategy(member), build_dataset(member, watch=watch)
    augmentation, mirrors = build_augmentation(member, dataset=dataset), sees_mirrors(member, dataset=dataset)
    backbone = build_backbone(member, dataset=dataset, strategy=strategy)
    compute = build_compute(member, place=place, backbone=backbone, strategy=strategy)
    where = f"{describe_device(place.device)}{place.ranks.told}"
    watch.notice(f"{who}: {backbone.name} on {dataset.name}, {where}, {compute}")
    return Ground(
        strategy=strategy,
        dataset=dataset,
        augmentation=augmentation,
        mirrors=mirrors,
        backbone=backbone,
        compute=compute,
        images=build_images(member, dataset=dataset, backbone=backbone, watch=watch, share=share, ranks=place.ranks),
    )


def build_materials(members: Sequence[Member], ground: Ground, *, watch: Watch) -> Materials:
    """Gather what the strategy may use; the backbone goes to its device."""
    shared, compute = members[0], ground.compute
    return Materials(
        backbone=_placed(ground.backbone, compute),
        num_classes=ground.dataset.num_classes,
        images=ground.images,
        augmentation=ground.augmentation,
        mixing=build_mixing(shared),
        sampler=sampler(shared, dataset=ground.dataset, images=ground.images),
        head=build_head(shared),
        batch_size=samples_per_step(shared),
        epochs=shared.config["epochs"],
        seeds=tuple(member.config["seed"] for member in members),
        compute=compute,
        cache=keeps_features(shared, strategy=ground.strategy, watch=watch),
        memory_bytes=memory_bytes(shared),
        watch=watch,
        mirrors=ground.mirrors,
    )


def _placed(backbone: Backbone, compute: Compute) -> Backbone:
    """Move a backbone to its device; one that is sharded goes there in shares, as it may not fit."""
    if compute.shards:
        return backbone
    return backbone.to(device=compute.device, memory_format=compute.memory_format)  # type: ignore[call-overload]


def build_trainer(members: Sequence[Member], workload: Workload, *, ground: Ground) -> Trainer:
    """Build what trains the members."""
    updates = _build_updates(members, workload, schedulers=[build_scheduler(member) for member in members])
    options = _build_options(members[0], ground)
    return Trainer(workload, updates=updates, device=ground.compute.device, options=options, ranks=ground.compute.ranks)


def range_trainer_factory(member: Member, ground: Ground) -> MakeTrainer:
    """Return what makes the trainer of a range test: the member's own optimizer and loss, under another schedule."""
    options = replace(
        _build_options(member, ground),
        log_every_steps=1,
        compile=False,
        skips_nonfinite=False,
        ema_decay=None,
        patience=None,
    )

    def make_trainer(workload: Workload, scheduler: ScheduleFactory) -> Trainer:
        updates = _build_updates([member], workload, schedulers=[scheduler])
        return Trainer(
            workload, updates=updates, device=ground.compute.device, options=options, ranks=ground.compute.ranks
        )

    return make_trainer


def _build_updates(members: Sequence[Member], workload: Workload, *, schedulers: Sequence[ScheduleFactory]) -> Updates:
    return make_updates(
        workload.groups,
        optimizers=[build_optimizer(member) for member in members],
        schedulers=schedulers,
        fused=members[0].config["runtime"]["fused"] and not members[0].config["runtime"]["fsdp"],
        clip_grad_norm=members[0].config["clip_grad_norm"],
    )


def _build_options(member: Member, ground: Ground) -> TrainingOptions:
    config, runtime = member.config, member.config["runtime"]
    if runtime["on_oom"] == "halve" and not ground.compute.ranks.is_alone:
        raise ConfigError("runtime.on_oom=halve: the other processes of a run would wait; expected error")
    return TrainingOptions(
        loss=build_loss(member, dataset=ground.dataset, images=ground.images, device=ground.compute.device),
        seed=config["seed"],
        log_every_steps=runtime["log_every_steps"],
        compile=runtime["compile"],
        skips_nonfinite=config["on_nonfinite"] == "skip",
        halves=runtime["on_oom"] == "halve",
        micro_batch=config["batch_size"] if config["accumulate_steps"] > 1 else None,
        ema_decay=config["ema_decay"],
        patience=config["early_stopping"]["patience"],
    )


def _absolute_root(member: Member) -> dict[str, str]:
    """Where the images are, whatever folder a run goes on from; nothing where they are embedded."""
    return {"root": data_source(member)} if member.config["dataset"].get("root") else {}


def resolved_config(member: Member, ground: Ground) -> dict[str, Any]:
    """Return the configuration with what the machine or the data decide for `auto` and null, as it was decided.

    `lr=auto` and `class_weights=auto` are rules, which stay.
    """
    compute = ground.compute
    runtime = member.config["runtime"] | {
        "device": str(compute.device),
        "threads": torch.get_num_threads(),
        "train_precision": compute.train.name,
        "infer_precision": compute.infer.name,
        "memory_format": compute.layout,
        "infer_batch_size": compute.infer_batch_size,
    }
    weights = {} if ground.strategy.pretrained else {"weights": None}
    return member.config | {
        "runtime": runtime,
        "backbone": member.config["backbone"] | {"image_size": ground.backbone.input_spec.size} | weights,
        "dataset": member.config["dataset"]
        | _absolute_root(member)
        | {"crop_pct": _crop_pct(ground.dataset, ground.backbone)},
        "augmentation": member.config["augmentation"] | {"hflip_prob": ground.augmentation.hflip_prob},
    }
