"""Stopped anywhere and gone on with, training ends with the bits of training that was left alone."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tests.engine import training
from tests.engine.test_trainer import CPU, TRAIN, image_workload, make_workload
from tl_experiments.engine import schedulers
from tl_experiments.engine.checkpoint import TENSORS, Checkpoints
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord, FinalRecord, Progress
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.files import verify_folder
from tl_experiments.strategies.base import Workload

Told = list[object]
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": partial(AdamW, lr=0.01),
    "adam": partial(Adam, lr=0.01, weight_decay=0.1),
    "sgd": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "plain sgd": partial(SGD, lr=0.1),
    "rmsprop": partial(RMSprop, lr=0.01, momentum=0.5),
}
SCHEDULES = {
    "cosine": partial(schedulers.cosine, warmup_epochs=0.5, min_lr_fraction=0.0),
    "plateau": partial(schedulers.plateau, factor=0.1, patience=0),
    "step": partial(schedulers.step, step_size=1, gamma=0.3),
    "onecycle": partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
}


def make_trainer(workload: Workload, optimizer: Callable[..., Optimizer], schedule: Callable[..., object]) -> Trainer:
    count = workload.num_members
    updates = make_updates(workload.groups, optimizers=[optimizer] * count, schedulers=[schedule] * count, fused=True)
    return Trainer(workload, updates=updates, device=CPU, options=TrainingOptions(seed=7, log_every_steps=2))


def make_checkpoints(
    folder: Path, uids: Sequence[str], *, notes: list[str] | None = None, data: str = "d"
) -> Checkpoints:
    return Checkpoints(
        folder,
        identity={uid: {"data": data, "configuration": f"of {uid}"} for uid in uids},
        description={"class_names": ["cat", "dog", "cow"]},
        every_seconds=600.0,
        notice=(notes if notes is not None else []).append,
    )


def told(record: object, *, members: Sequence[int]) -> Told:
    """What a record says of some members, but for times."""
    if isinstance(record, EpochRecord):
        metrics = [record.metrics(member) for member in members]
        quiet = [{name: value for name, value in own.items() if not name.startswith("perf/")} for own in metrics]
        return [record.epoch, quiet, [record.improved[member] for member in members]]
    if isinstance(record, FinalRecord):
        return [[record.metrics(member) for member in members], record.logits[list(members)].tolist()]
    return []


def finish(trainer: Trainer, workload: Workload, *, members: Sequence[int]) -> tuple[list[Told], list[str]]:
    """Train to the end; returns what was told and the digests of the best weights."""
    records = [told(record, members=members) for record in (*trainer.fit(), *trainer.test())]
    return [record for record in records if record], [workload.weights_sha256(member) for member in members]


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "bank with dropout, two phases": lambda: make_workload((0, 1, 2), epochs=(2, 1), dropout=0.5),
    "one head": lambda: make_workload((5,), epochs=(3,)),
    "images and batchnorm": lambda: image_workload(held=False)[0],
    "images, channels last": lambda: channels_last(),
}


def channels_last() -> Workload:
    workload, _ = image_workload(held=False)
    workload.deployables[0].to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return workload


ALONE = dict(zip(OPTIMIZERS, (*SCHEDULES, "cosine"), strict=True))  # each optimizer with a schedule
# Every workload with one of them, and of each kind of updates one with every other.
CASES = [("adamw", kind) for kind in WORKLOADS] + [
    (optimizer, kind)
    for optimizer in OPTIMIZERS
    if optimizer != "adamw"
    for kind in ("one head", "images and batchnorm")
]


@pytest.mark.parametrize(("optimizer", "kind"), CASES)
def test_after_any_record_it_goes_on_with_the_same_bits(optimizer: str, kind: str, tmp_path: Path) -> None:
    def start() -> tuple[Trainer, Workload]:
        workload = WORKLOADS[kind]()
        return make_trainer(workload, OPTIMIZERS[optimizer], SCHEDULES[ALONE[optimizer]]), workload

    trainer, workload = start()
    uids = [f"uid{member}" for member in range(workload.num_members)]
    everyone = range(workload.num_members)
    expected, weights = finish(trainer, workload, members=everyone)
    trainer, _ = start()
    for stop, _ in enumerate(trainer.fit()):
        state = trainer.state()
        folder = tmp_path / str(stop)
        assert make_checkpoints(folder, uids).save(state, seconds=1.0) is not None
        resumed = make_checkpoints(folder, uids).resume()
        assert resumed is not None
        assert resumed.state.position == state.position
        after, other = start()
        after.load(resumed.state)
        left, digests = finish(after, other, members=everyone)
        assert digests == weights
        assert left == expected[state.epochs :], "what is told of the epochs that are left"


@pytest.mark.parametrize("kind", WORKLOADS)
def test_with_averages_clipping_parts_and_patience_too(kind: str, tmp_path: Path) -> None:
    def start() -> tuple[Trainer, Workload]:
        workload = WORKLOADS[kind]()
        options = {"ema_decay": 0.9, "micro_batch": 3, "patience": 1}
        return training.make_trainer(workload, OPTIMIZERS["sgd"], clip_grad_norm=0.3, **options), workload

    trainer, workload = start()
    uids = [f"uid{member}" for member in range(workload.num_members)]
    everyone = range(workload.num_members)
    expected, weights = finish(trainer, workload, members=everyone)
    trainer, _ = start()
    for stop, _ in enumerate(trainer.fit()):
        state = trainer.state()
        make_checkpoints(tmp_path / str(stop), uids).save(state, seconds=1.0)
        resumed = make_checkpoints(tmp_path / str(stop), uids).resume()
        assert resumed is not None
        after, other = start()
        after.load(resumed.state)
        left, digests = finish(after, other, members=everyone)
        assert digests == weights
        assert left == expected[state.epochs :]


def test_a_resumed_run_repeats_no_step(tmp_path: Path) -> None:
    workload = make_workload((0,), epochs=(2,))
    trainer = make_trainer(workload, OPTIMIZERS["sgd"], SCHEDULES["cosine"])
    for record in trainer.fit():
        if isinstance(record, Progress) and (record.epoch, record.step) == (2, 3):
            make_checkpoints(tmp_path, ["a"]).save(trainer.state(), seconds=1.0)
            break
    resumed = make_checkpoints(tmp_path, ["a"]).resume()
    assert resumed is not None
    again = make_trainer(make_workload((0,), epochs=(2,)), OPTIMIZERS["sgd"], SCHEDULES["cosine"])
    again.load(resumed.state)
    steps = [record.step for record in again.fit() if isinstance(record, Progress) and record.stage == "train"]
    assert steps == list(range(4, TRAIN // 8 + 1))


def test_some_members_of_a_bank_go_on_without_the_others(tmp_path: Path) -> None:
    def start(seeds: tuple[int, ...]) -> tuple[Trainer, Workload]:
        workload = make_workload(seeds, epochs=(3,))
        return make_trainer(workload, OPTIMIZERS["adamw"], SCHEDULES["plateau"]), workload

    trainer, workload = start((0, 1, 2))
    _, weights = finish(trainer, workload, members=range(3))
    trainer, _ = start((0, 1, 2))
    for record in trainer.fit():
        if isinstance(record, Progress) and (record.epoch, record.step) == (2, 3):
            make_checkpoints(tmp_path, "abc").save(trainer.state(), seconds=1.0)
            break
    resumed = make_checkpoints(tmp_path, "ca").resume()
    assert resumed is not None
    trainer, workload = start((2, 0))
    trainer.load(resumed.state)
    _, digests = finish(trainer, workload, members=range(2))
    assert digests == [weights[2], weights[0]]


def _saved(folder: Path, *, epochs: int = 5, uids: Sequence[str] = "a") -> list[str]:
    trainer = make_trainer(make_workload((0,), epochs=(epochs,)), OPTIMIZERS["sgd"], SCHEDULES["cosine"])
    checkpoints = make_checkpoints(folder, uids)
    best = 0
    for record in trainer.fit():
        if isinstance(record, EpochRecord):
            best = record.epoch if record.improved[0] else best
            checkpoints.save(trainer.state(), seconds=float(record.epoch))
    return sorted({f"epoch-{epoch:04}-step-{epoch * 5:08}" for epoch in (best, epochs - 1, epochs)})


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for epochs in (3, 5, 9, 12):
        kept = _saved(tmp_path / str(epochs), epochs=epochs)
        assert sorted(path.name for path in (tmp_path / str(epochs)).iterdir()) == kept


def test_a_damaged_checkpoint_is_told_and_the_one_before_counts(tmp_path: Path) -> None:
    kept = _saved(tmp_path)
    content = bytearray((tmp_path / kept[-1] / TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / kept[-1] / TENSORS).write_bytes(content)
    notes: list[str] = []
    resumed = make_checkpoints(tmp_path, "a", notes=notes).resume()
    assert resumed is not None
    assert resumed.folder.name == kept[-2]
    [note] = notes
    assert kept[-1] in note
    assert "checksum" in note


def test_another_run_in_the_same_folder_begins_anew(tmp_path: Path) -> None:
    _saved(tmp_path, epochs=9)
    trainer = make_trainer(make_workload((0,), epochs=(1,)), OPTIMIZERS["sgd"], SCHEDULES["cosine"])
    checkpoints = make_checkpoints(tmp_path, "b")
    assert checkpoints.resume() is None
    [*_, _] = trainer.fit()
    assert checkpoints.save(trainer.state(), seconds=1.0) == tmp_path / "epoch-0001-step-00000005"
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001-step-00000005"]


def test_data_that_changed_are_refused_by_name(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(SettingError, match="data changed since"):
        make_checkpoints(tmp_path, "a", data="other").resume()


def test_another_format_is_refused(tmp_path: Path) -> None:
    [*_, newest] = _saved(tmp_path)
    values = json.loads((tmp_path / newest / "state.json").read_text())
    (tmp_path / newest / "state.json").write_text(json.dumps({**values, "format": 2}))
    (tmp_path / newest / "manifest.json").write_text("")
    _republish(tmp_path / newest)
    with pytest.raises(SettingError, match="a checkpoint of format 2; this program reads 1"):
        make_checkpoints(tmp_path, "a").resume()


def _republish(folder: Path) -> None:
    from tl_experiments.runtime.files import published_folder

    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    with published_folder(folder) as making:
        for name, content in contents.items():
            (making / name).write_bytes(content)
    verify_folder(folder)


def test_a_full_disk_costs_a_note_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _saved(tmp_path)
    trainer = make_trainer(make_workload((0,), epochs=(9,)), OPTIMIZERS["sgd"], SCHEDULES["cosine"])
    list(trainer.fit())
    notes: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    newest = make_checkpoints(tmp_path, "a", notes=notes).save(trainer.state(), seconds=1.0)
    assert newest == tmp_path / kept[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    [note] = notes
    assert "ENOSPC: No space left on device" in note
