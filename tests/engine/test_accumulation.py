"""Steps whose samples are computed in parts: what they learn is what a large batch teaches."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engine.test_nonfinite import Narrow
from tests.engine.test_trainer import epochs_of, image_workload, make_workload
from tests.engine.training import make_trainer
from tl_experiments.engine.records import Halved, Progress
from tl_experiments.strategies.base import Workload

PARTS = 3  # of 8 samples


def larger(workload: Workload, times: int) -> Workload:
    """The workload with batches that hold more."""
    [phase] = workload.phases

    def opened() -> Any:
        batches: Any = phase.open()
        return replace(batches, train=replace(batches.train, batch_size=times * batches.train.batch_size))

    return replace(workload, phases=(replace(phase, open=opened),))


def images(*, room: int = 10**6) -> tuple[Workload, Narrow]:
    workload, _ = image_workload(held=True)
    [phase] = workload.phases
    module = Narrow(phase.module, room=room)
    return larger(replace(workload, phases=(replace(phase, module=module),)), PARTS), module


@pytest.mark.parametrize("kind", ["heads", "images"])
def test_parts_teach_what_a_large_batch_teaches(kind: str) -> None:
    """40 samples in steps of 24 and 16; 24 images in one."""

    def start() -> Workload:
        return larger(make_workload((0, 1), epochs=(3,)), PARTS) if kind == "heads" else images()[0]

    whole, in_parts = start(), start()
    expected = epochs_of([*make_trainer(whole).fit()])
    records = [*make_trainer(in_parts, micro_batch=8).fit()]
    for ours, theirs in zip(epochs_of(records), expected, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-5)
    for member in range(whole.num_members):
        for name, tensor in in_parts.trained_tensors(member).items():
            torch.testing.assert_close(tensor, whole.trained_tensors(member)[name], rtol=1e-4, atol=1e-6)
    steps = [record for record in records if isinstance(record, Progress) and record.stage == "train"]
    assert {record.num_steps for record in steps} == {2 if kind == "heads" else 1}
    assert not any(isinstance(record, Halved) for record in records), "it is no trouble of memory"


def test_no_more_than_a_part_is_computed_at_a_time() -> None:
    workload, module = images(room=8)
    list(make_trainer(workload, micro_batch=8).fit())
    assert module.widest == 8


def test_parts_are_halved_where_memory_holds_no_part() -> None:
    workload, _ = images(room=5)
    records = [*make_trainer(workload, micro_batch=8, halves=True).fit()]
    assert [record.micro_batch for record in records if isinstance(record, Halved)] == [4]
    whole, _ = images()
    list(make_trainer(whole).fit())
    for name, tensor in workload.trained_tensors(0).items():
        torch.testing.assert_close(tensor, whole.trained_tensors(0)[name], rtol=1e-4, atol=1e-5)


def test_a_large_batch_of_features_gives_a_member_the_bits_that_it_has_alone() -> None:
    def trained(*seeds: int) -> Workload:
        workload = larger(make_workload(seeds, epochs=(3,)), PARTS)
        list(make_trainer(workload, micro_batch=8, ema_decay=0.9).fit())
        return workload

    assert trained(0, 1, 2).weights_sha256(1) == trained(1).weights_sha256(0)


def test_batchnorm_sees_parts() -> None:
    """Its statistics move once for each, as the documentation says."""
    workload, norm = image_workload(held=False)
    list(make_trainer(larger(workload, PARTS), micro_batch=8).fit())
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 2 * math.ceil(24 / 8)
