"""The story of one run, told for one or more members that share data, backbone, strategy and epochs."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from tl_experiments import build
from tl_experiments.config.member import Member
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.watch import UNWATCHED, Watch
from tl_experiments.engine.lr_finder import RangeTest
from tl_experiments.inference.examples import example_canvases
from tl_experiments.inference.saved_model import save_model
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.process import describe_device
from tl_experiments.runtime.ranks import Ranks
from tl_experiments.strategies.base import Workload
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.found_rate import find_rate
from tl_experiments.tracking.rate_picture import write_range
from tl_experiments.tracking.recorded_training import Prunes, follow, show_plan, told_how, train
from tl_experiments.tracking.run_log import RunLog, RunResult


def run_experiments(members: Sequence[Member], *, prunes: Prunes | None = None) -> list[RunResult]:
    """Train, test and record the members; returns their results in the same order.

    Args:
        members: of one process.
        prunes: says of a member that is alone, after each epoch, whether its search stops it there, untested.

    Raises:
        UserError: data, weights or settings cannot be used, or a run could not go on.
    """
    shared = members[0]
    logs = [build.build_log(member, index=index, num_members=len(members)) for index, member in enumerate(members)]
    with ExitStack() as stack:
        console = stack.enter_context(Console())
        place = stack.enter_context(build.build_place(shared))
        ranks = place.ranks
        for member in members:
            build.check_buildable(member)
        who = shared.name if len(members) == 1 else f"{len(members)} heads together"
        ground = build.build_ground(shared, who=who, place=place, watch=console)
        images, dataset, backbone = ground.images, ground.dataset, ground.backbone

        for member, log in zip(members, logs, strict=True):
            resolved = build.resolved_config(member, ground)
            log.begin(resolved, device=describe_device(place.device), num_processes=ranks.count)
            stack.enter_context(log)  # from here on the run exists, and ends with its true status
            log.dataset(name=dataset.name, source=build.data_source(member), images=images)
        stack.enter_context(told_how(logs, console=console))
        stack.enter_context(build.build_lack_notice(shared, backbone=backbone))
        workload = ground.strategy.prepare(build.build_materials(members, ground, watch=console))
        begins = Beginning.of(workload)
        begins.require_same_everywhere(ranks, images)
        _identify(logs, workload, begins)
        if build.seeks_rate(shared):
            known = logs[0].found_rate
            found = _agreed_rate(shared, ground, workload, known=known, watch=console)
            if known is None:
                logs[0].rate(found)
            members = [build.at_rate(shared, found.suggestion)]
        trainer = build.build_trainer(members, workload, ground=ground)
        show_plan(trainer.plan(), console=console, logs=logs)
        checkpoints = build.build_checkpoints(shared, logs=logs, dataset=dataset, backbone=backbone, watch=console)
        whole = train(trainer, checkpoints, console=console, logs=logs, prunes=prunes, ranks=ranks)
        _require_same(workload, begins.frozen)
        results = [
            _keep(shared, log, workload=workload, index=index, images=images, class_names=dataset.class_names)
            if whole
            else log.prune()
            for index, log in enumerate(logs)
            if log.failure is None
        ]
    _require_all(logs)
    if not shared.config["checkpoint"]["keep_when_finished"]:
        checkpoints.remove()
    return results


def follow_experiment(members: Sequence[Member]) -> None:
    """Train along with the process that runs `run_experiments` for these members and keeps their record.

    Raises:
        UserError: data, weights or settings cannot be used, or the first process is gone.
    """
    shared = members[0]
    with build.build_place(shared) as place:
        ranks = place.ranks
        ground = build.build_ground(shared, who="", place=place, watch=UNWATCHED)
        with build.build_lack_notice(shared, backbone=ground.backbone):
            workload = ground.strategy.prepare(build.build_materials(members, ground, watch=UNWATCHED))
            Beginning.of(workload).require_same_everywhere(ranks, ground.images)
            if build.seeks_rate(shared):
                found = _agreed_rate(shared, ground, workload, known=None, watch=UNWATCHED)
                members = [build.at_rate(shared, found.suggestion)]
            follow(build.build_trainer(members, workload, ground=ground), ranks=ranks)
            for model in workload.deployables:
                workload.finish(model)  # to which each process may have a share


def _agreed_rate(
    member: Member, ground: build.Ground, workload: Workload, *, known: RangeTest | None, watch: Watch
) -> RangeTest:
    """Return what `lr=auto` comes to: as the first process knows it of a run that goes on, else by all together."""
    found = ground.compute.ranks.from_first(known)
    return found or find_rate(workload, build.range_trainer_factory(member, ground), watch=watch)


def find_lr(member: Member) -> RangeTest:
    """Run the range test of a run that is not made; its curve is left in the member's folder.

    Raises:
        UserError: data, weights or settings cannot be used.
    """
    with Console() as console, build.build_place(member) as place:
        build.check_buildable(member)
        ground = build.build_ground(member, who=member.name, place=place, watch=console)
        with build.build_lack_notice(member, backbone=ground.backbone):
            workload = ground.strategy.prepare(build.build_materials([member], ground, watch=console))
            found = find_rate(workload, build.range_trainer_factory(member, ground), watch=console)
        console.notice(f"curve  {write_range(found, member.folder)[0]}")
        return found


@dataclass(frozen=True)
class Beginning:
    """Digests of the weights that training begins with: those that must not change, and each member's."""

    frozen: str
    weights: tuple[str, ...]

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """Digest a workload that is about to be trained; all processes do, as each may hold a share of it."""
        weights = tuple(workload.weights_sha256(member) for member in range(workload.num_members))
        return cls(workload.frozen_sha256(), weights)

    def require_same_everywhere(self, ranks: Ranks, images: DatasetImages) -> None:
        """See that all processes learn the same from the same.

        Raises:
            RunFailed: some do not.
        """
        ranks.require_same(images.fingerprint, what="the images")
        ranks.require_same(" ".join(self.weights), what="the weights to begin with")


def _identify(logs: Sequence[RunLog], workload: Workload, begins: Beginning) -> None:
    """Record what is about to be trained."""
    for index, log in enumerate(logs):
        log.identify(
            weights=begins.weights[index],
            frozen=begins.frozen,
            num_trained_params=workload.num_trained_params(index),
        )


def _require_same(workload: Workload, frozen: str) -> None:
    if workload.frozen_sha256() != frozen:
        raise RunFailed("frozen weights changed while training; please report this as a defect")


def _require_all(logs: Sequence[RunLog]) -> None:
    """Name the members that were left alone; the others have their results."""
    if lost := [f"{log.name}: {log.failure}" for log in logs if log.failure is not None]:
        raise RunFailed("; ".join(lost))


def _keep(
    shared: Member, log: RunLog, *, workload: Workload, index: int, images: DatasetImages, class_names: Sequence[str]
) -> RunResult:
    """Write one member's model and its result."""
    model = workload.finish(workload.deployables[index])
    digest = tensors_sha256(model.state_dict())
    examples = example_canvases(images.test)
    description = build.describe_model(
        shared,
        model,
        head=workload.head,
        class_names=class_names,
        images=images,
        num_examples=len(examples),
        temperature=log.temperature,
        weights_sha256=digest,
    )
    card = build.write_card(shared, description, name=log.name, images=images, metrics=log.metrics)
    save_model(model, log.folder / "model", description=description, examples=examples, card=card)
    return log.finish(weights_sha256=digest, images=images.test, class_names=class_names)
