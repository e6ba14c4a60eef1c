"""What records a run: tracker, log and checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tl_experiments.build.targets import instantiate_group
from tl_experiments.config.member import Member
from tl_experiments.data.source import Dataset
from tl_experiments.data.watch import Watch
from tl_experiments.engine.checkpoint import Checkpoints
from tl_experiments.models.backbone import Backbone
from tl_experiments.runtime.disk import disk_told
from tl_experiments.runtime.memory import memory_told
from tl_experiments.tracking.run_log import RunLog
from tl_experiments.tracking.run_record import RunRecord
from tl_experiments.tracking.tracker import Tracker


def build_tracker(member: Member) -> Tracker:
    """Make what records the member's run; the store is touched when it is entered."""
    return instantiate_group(
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
    return instantiate_group(
        member, "tracking", run_name=name, uid=member.sweep_id, parent_uid=None, folder=folder, tags=tags
    )


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
