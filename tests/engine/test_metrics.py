"""Sums over batches are the numbers of torchmetrics and of F.cross_entropy, for every member."""

import math

import pytest
import torch
import torch.nn.functional as F

from tl_experiments.data.batches import Batch
from tl_experiments.engine.metrics import Sums, batch_sums, member_losses

CPU = torch.device("cpu")
NUM_MEMBERS, NUM_CLASSES = 3, 5


def make_batches(sizes: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(NUM_MEMBERS, size, NUM_CLASSES, generator=generator) * 3,
            torch.randint(0, NUM_CLASSES, (NUM_MEMBERS, size), generator=generator),
        )
        for size in sizes
    ]


def summed(logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
    batch = Batch(torch.zeros(labels.shape[1], 1), labels)
    return batch_sums(batch, logits, member_losses(logits, labels) if losses is None else losses)


def test_losses_are_the_cross_entropy_of_each_sample() -> None:
    [(logits, labels)] = make_batches((7,))
    losses = member_losses(logits, labels)
    assert losses.shape == (NUM_MEMBERS, 7)
    for member in range(NUM_MEMBERS):
        expected = F.cross_entropy(logits[member], labels[member], reduction="none")
        torch.testing.assert_close(losses[member], expected)


def test_losses_of_half_precision_are_computed_in_float32() -> None:
    [(logits, labels)] = make_batches((7,))
    losses = member_losses(logits.bfloat16(), labels)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, member_losses(logits.bfloat16().float(), labels))


def test_means_are_those_of_torchmetrics_over_batches_of_unequal_size() -> None:
    from torchmetrics.classification import MulticlassAccuracy  # it takes half a second

    batches = make_batches((8, 8, 3))
    sums = Sums(num_members=NUM_MEMBERS, device=CPU)
    for logits, labels in batches:
        sums.add(summed(logits, labels))
    means = sums.means()
    for member in range(NUM_MEMBERS):
        accuracy = MulticlassAccuracy(num_classes=NUM_CLASSES, average="micro")
        for logits, labels in batches:
            accuracy.update(logits[member], labels[member])
        every = torch.cat([logits[member] for logits, _ in batches])
        truth = torch.cat([labels[member] for _, labels in batches])
        assert means.acc[member] == pytest.approx(accuracy.compute().item())
        assert means.loss[member] == pytest.approx(F.cross_entropy(every, truth).item(), rel=1e-5)


def test_means_are_of_the_samples_so_far() -> None:
    first, second = make_batches((4, 4))
    sums = Sums(num_members=NUM_MEMBERS, device=CPU)
    sums.add(summed(*first))
    early = sums.means()
    sums.add(summed(*second))
    assert early.loss == pytest.approx(member_losses(*first).mean(dim=1).tolist())
    assert sums.means().loss != early.loss


def test_many_small_losses_are_not_lost_beside_a_large_sum() -> None:
    sums = Sums(num_members=1, device=CPU)
    logits, labels = torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.int64)
    sums.add(summed(logits, labels, torch.full((1, 1), 2.0**26)))
    for _ in range(64):
        sums.add(summed(logits, labels, torch.full((1, 1), 1.0)))
    assert sums.means().loss[0] * 65 == 2**26 + 64


def test_means_over_no_samples_are_no_numbers() -> None:
    means = Sums(num_members=2, device=CPU).means()
    assert all(math.isnan(value) for value in (*means.loss, *means.acc))


def test_a_batch_that_taught_some_members_nothing_is_counted_or_left_out() -> None:
    logits, labels = torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.int64)
    losses = torch.tensor([[1.0, 1.0, 1.0], [math.nan, 1.0, 1.0]])
    updated = torch.tensor([True, False])
    for skips in (False, True):
        sums = Sums(num_members=2, device=CPU)
        plain = summed(logits, labels, torch.full((2, 3), 2.0))
        sums.add(plain, updated=torch.tensor([True, True]), skips=skips)
        sums.add(summed(logits, labels, losses), updated=updated, skips=skips)
        means = sums.means()
        assert means.num_skipped == (0, 1)
        assert means.loss[0] == 1.5
        assert means.loss[1] == 2.0 if skips else math.isnan(means.loss[1])


def test_what_is_asked_for_arrives_once_and_is_of_the_samples_until_then() -> None:
    first, second = make_batches((4, 4))
    sums = Sums(num_members=NUM_MEMBERS, device=CPU)
    sums.add(summed(*first))
    until_then = sums.means()
    assert sums.arrived() is None
    sums.ask()
    sums.add(summed(*second))
    sums.ask()  # what is on its way is not thrown away
    assert sums.arrived() == until_then
    assert sums.arrived() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_waits_for_a_busy_gpu() -> None:
    device = torch.device("cuda")
    sums = Sums(num_members=1, device=device)
    torch.cuda._sleep(10**9)  # about half a second
    sums.ask()
    assert sums.arrived() is None
    torch.cuda.synchronize()
    assert sums.arrived() is not None
