"""Training that ends early: when, what is left, and that others of a bank do not notice."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.engine.test_trainer import epochs_of, final_of, make_workload
from tests.engine.training import make_trainer, of_member
from tl_experiments.engine.members import Patience, patience_in
from tl_experiments.engine.records import Diverged, FinalRecord, Record, Stopped
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.strategies.base import Workload

SEEDS, EPOCHS, PATIENCE = (0, 1, 2, 3), 30, 2
RATE = partial(torch.optim.SGD, lr=3.0)  # so large that val/acc jumps
ABSURD = partial(torch.optim.SGD, lr=1e38)


def train(seeds: tuple[int, ...], *optimizers, epochs: tuple[int, ...] = (EPOCHS,), patience: int | None = PATIENCE):
    workload = make_workload(seeds, epochs=epochs)
    trainer = make_trainer(workload, *(optimizers or [RATE]), patience=patience, ema_decay=0.5)
    return workload, [*trainer.fit(), *trainer.test()]


def stops(records: list[Record]) -> dict[int, int]:
    return {record.member: record.epoch for record in records if isinstance(record, Stopped)}


def test_training_ends_after_so_many_epochs_that_were_no_better() -> None:
    ended = set()
    for seed in SEEDS:
        _, records = train((seed,))
        epochs = epochs_of(records)
        best = max(record.epoch for record in epochs if record.improved[0])
        assert [record.epoch for record in epochs] == [*range(1, best + PATIENCE + 1)]
        [stopped] = [record for record in records if isinstance(record, Stopped)]
        assert (stopped.member, stopped.epoch) == (0, best + PATIENCE)
        assert f"epoch {best}" in stopped.reason
        assert records.index(stopped) == records.index(epochs[-1]) + 1
        ended.add(stopped.epoch)
    assert len(ended) > 1, "the tests need members that stop at different epochs"


def test_a_member_of_a_bank_stops_as_it_does_alone_and_the_others_go_on() -> None:
    bank, together = train(SEEDS)
    lone = [train((seed,)) for seed in SEEDS]
    assert stops(together) == {member: stops(records)[0] for member, (_, records) in enumerate(lone)}
    assert len(epochs_of(together)) == max(stops(together).values())
    for member, (workload, records) in enumerate(lone):
        assert bank.weights_sha256(member) == workload.weights_sha256(0)
        assert of_member(together, member, until=stops(together)[member]) == of_member(records, 0)
        later = [record for record in epochs_of(together) if record.epoch > stops(together)[member]]
        assert not any(record.improved[member] for record in later)
        assert len({record.val_loss[member] for record in later}) <= 1, "its weights stay as they are"
        assert not any(isinstance(record, Diverged) for record in together)


def test_who_makes_all_epochs_has_not_stopped_early() -> None:
    _, free = train((0,), patience=None)
    assert not stops(free)
    assert len(epochs_of(free)) == EPOCHS
    best = max(record.epoch for record in epochs_of(free) if record.improved[0])
    _, just = train((0,), patience=EPOCHS - best)
    assert not stops(just)
    assert of_member(just, 0) == of_member(free, 0)


def test_only_the_last_phase_is_cut_short() -> None:
    alone, _ = train((0,), epochs=(EPOCHS,))
    _, records = train((0,), epochs=(9, EPOCHS))
    epochs, last = epochs_of(records), stops(records)[0]
    best = max(record.epoch for record in epochs if record.improved[0])
    assert sum(record.phase == "phase-0" for record in epochs) == 9, "however bad they were"
    assert last == max(best, 9) + PATIENCE
    assert alone.num_members == 1
    assert Patience(2, start=9, num_epochs=20).stopped(0, best_epoch=3, epochs=10) is None
    stopped = Patience(2, start=9, num_epochs=20).stopped(0, best_epoch=3, epochs=11)
    assert stopped is not None
    assert stopped.epoch == 11


def test_candidates_that_are_solved_for_are_all_seen() -> None:
    [phase] = make_workload(epochs=(5,)).phases
    assert patience_in([phase], epochs=1) == Patience(1, start=0, num_epochs=5)
    assert patience_in([replace(phase, solve=lambda *_: None)], epochs=1) is None


def test_one_that_diverges_is_a_failure_and_one_that_stops_is_none() -> None:
    _, records = train((0, 1), RATE, ABSURD)
    assert [record.member for record in records if isinstance(record, Diverged)] == [1]
    assert stops(records) == stops(train((0,))[1])
    assert isinstance(records[-1], FinalRecord), "what has stopped is tested though nobody goes on"
    with pytest.raises(RunFailed):
        train((0, 1), ABSURD)


def test_a_run_that_goes_on_after_any_epoch_stops_where_it_would_have() -> None:
    def start() -> tuple[Workload, object]:
        workload = make_workload(SEEDS, epochs=(EPOCHS,))
        return workload, make_trainer(workload, RATE, patience=PATIENCE)

    workload, trainer = start()
    states, records = [], []
    for record in trainer.fit():  # pyright: ignore[reportAttributeAccessIssue]
        records.append(record)
        states.append(trainer.state() if record in (*epochs_of([record]), *_stopped(record)) else None)
        if states[-1] is not None:
            states[-1] = replace(states[-1], members=tuple(_copied(own) for own in states[-1].members))
    final = final_of(trainer)  # pyright: ignore[reportArgumentType]
    weights = [workload.weights_sha256(member) for member in range(len(SEEDS))]
    for state in filter(None, states):
        workload, again = start()
        again.load(state)
        left = [*again.fit()]
        assert stops(left) == stops(records)
        told = [record.epoch for record in epochs_of(left)]
        assert told == [*range(state.epochs + 1, len(epochs_of(records)) + 1)]
        assert torch.equal(final_of(again).logits, final.logits)
        assert [workload.weights_sha256(member) for member in range(len(SEEDS))] == weights


def _stopped(record: Record) -> list[Record]:
    return [record] if isinstance(record, Stopped) else []


def _copied(own):
    return replace(own, tensors={name: tensor.clone() for name, tensor in own.tensors.items()})
