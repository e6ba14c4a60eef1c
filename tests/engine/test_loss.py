"""What training minimises is torch's own loss, for each member as alone; validation sees none of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from tests.engine.test_trainer import CPU, epochs_of, final_of, image_workload, make_workload
from tl_experiments.data.batches import Batch, ImageBatches
from tl_experiments.data.mixing import Mixed, Mixing
from tl_experiments.engine import schedulers
from tl_experiments.engine.loss import PLAIN, Loss
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.strategies.base import Workload

NUM_CLASSES = 3
WEIGHTS = torch.tensor([0.5, 1.0, 4.0])
LOSSES = {
    "smoothing": Loss(label_smoothing=0.2),
    "weights": Loss(class_weights=WEIGHTS),
    "both": Loss(label_smoothing=0.2, class_weights=WEIGHTS),
}


def make_batch(num_members: int = 2, *, size: int = 7, share: float | None = None) -> tuple[torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(num_members)
    logits = torch.randn(num_members, size, NUM_CLASSES, generator=generator) * 3
    labels, others = torch.randint(0, NUM_CLASSES, (2, num_members, size), generator=generator)
    mixed = None if share is None else Mixed(others, share)
    return logits, Batch(torch.zeros(size, 3), labels, mixed=mixed)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_torchs_cross_entropy(name: str) -> None:
    logits, batch = make_batch()
    loss = LOSSES[name]
    own = torch.nn.CrossEntropyLoss(loss.class_weights, label_smoothing=loss.label_smoothing, reduction="none")
    for member in range(2):
        torch.testing.assert_close(loss(logits, batch)[member], own(logits[member], batch.labels[member]))


@pytest.mark.parametrize(("name", "share"), [*product([*LOSSES, "plain"], [0.0, 0.3, 1.0])])
def test_losses_of_mixed_images_are_those_of_soft_targets(name: str, share: float) -> None:
    logits, batch = make_batch(share=share)
    assert batch.mixed
    loss = LOSSES.get(name, PLAIN)
    targets = F.one_hot(batch.labels, NUM_CLASSES) * share + F.one_hot(batch.mixed.labels, NUM_CLASSES) * (1 - share)
    own = torch.nn.CrossEntropyLoss(loss.class_weights, label_smoothing=loss.label_smoothing, reduction="none")
    for member in range(2):
        torch.testing.assert_close(loss(logits, batch)[member], own(logits[member], targets[member]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_member_has_the_bits_that_it_has_alone(name: str) -> None:
    """As a bank gives logits: classes before samples, at least two members computed."""
    for num_classes, size in product((2, 3, 7, 16, 100, 257), (1, 2, 7, 16, 33, 64)):
        generator = torch.Generator().manual_seed(size)
        logits = torch.randn(5, num_classes, size, generator=generator)
        labels = torch.randint(0, num_classes, (5, size), generator=generator)
        weights = None if LOSSES[name].class_weights is None else torch.rand(num_classes, generator=generator)
        loss = replace(LOSSES[name], class_weights=weights)
        together = loss(logits.transpose(1, 2), Batch(torch.zeros(1), labels))
        for member in (0, 4):
            doubled = logits[[member, member]].transpose(1, 2)[:1]
            alone = loss(doubled, Batch(torch.zeros(1), labels[member : member + 1]))
            assert torch.equal(together[member], alone[0]), (num_classes, size)


def make_trainer(workload: Workload, loss: Loss, *, lr: float = 0.1, halves: bool = False) -> Trainer:
    updates = make_updates(
        workload.groups,
        optimizers=[partial(torch.optim.SGD, lr=lr)] * workload.num_members,
        schedulers=[schedulers.constant] * workload.num_members,
        fused=True,
    )
    options = TrainingOptions(loss=loss, seed=0, log_every_steps=2, halves=halves)
    return Trainer(workload, updates=updates, device=CPU, options=options)


def test_the_loss_that_is_reported_of_training_is_minimised_and_that_of_validation_is_plain() -> None:
    """With a rate that moves nothing, they are those of the weights that were there."""
    workload = make_workload(epochs=(1,))
    [record] = epochs_of(list(make_trainer(workload, LOSSES["both"], lr=1e-20).fit()))
    phase, own = workload.phases[0], torch.nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.2, reduction="sum")
    with torch.no_grad():
        train, val = ([(phase.module(b.inputs)[0], b.labels[0]) for b in split.epoch(1)] for split in _splits(workload))
    expected = sum(own(logits, labels).item() for logits, labels in train) / 40
    assert record.train_loss[0] == pytest.approx(expected, rel=1e-5)
    plain = sum(F.cross_entropy(logits, labels, reduction="sum").item() for logits, labels in val) / 20
    assert record.val_loss[0] == pytest.approx(plain, rel=1e-5)


def _splits(workload: Workload) -> Iterator:
    opened = workload.phases[0].open()
    return iter((opened.train, opened.val))


def test_weights_teach_the_class_that_counts_more() -> None:
    def share_of_last(loss: Loss) -> float:
        trainer = make_trainer(make_workload(epochs=(10,)), loss)
        list(trainer.fit())
        return (final_of(trainer).logits.argmax(dim=2) == 2).double().mean().item()

    assert share_of_last(LOSSES["weights"]) > share_of_last(PLAIN) + 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_members_of_a_bank_learn_as_each_alone(name: str) -> None:
    together = make_workload((0, 1, 2))
    list(make_trainer(together, LOSSES[name]).fit())
    for member in range(3):
        alone = make_workload((member,))
        list(make_trainer(alone, LOSSES[name]).fit())
        assert together.weights_sha256(member) == alone.weights_sha256(0)


def mixed_workload(mixing: Mixing) -> Workload:
    """A convolution on images that are mixed; BatchNorm stands still, so that parts add up to the whole."""
    workload, _ = image_workload(held=True)
    [phase] = workload.phases
    opened = phase.open()
    assert isinstance(opened.train, ImageBatches)
    mixed = replace(opened, train=replace(opened.train, mixing=mixing))
    return replace(workload, phases=(replace(phase, open=lambda: mixed),))


@pytest.mark.parametrize(
    "mixing", [Mixing(mixup_alpha=1.0, cutmix_alpha=0.0), Mixing(mixup_alpha=1.0, cutmix_alpha=1.0)]
)
def test_parts_of_a_mixed_batch_add_up_to_it(mixing: Mixing) -> None:
    whole, parts, plain = mixed_workload(mixing), mixed_workload(mixing), image_workload(held=True)[0]
    list(make_trainer(whole, LOSSES["both"]).fit())
    trainer = make_trainer(parts, LOSSES["both"], halves=True)
    trainer.load(replace(trainer.state(), micro_batch=3))
    list(trainer.fit())
    list(make_trainer(plain, LOSSES["both"]).fit())
    tensors = whole.deployables[0].state_dict()
    for name, tensor in parts.deployables[0].state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain.deployables[0].head.weight, tensors["head.weight"], rtol=1e-3, atol=1e-3)


def test_accuracy_in_training_is_of_the_image_that_has_the_larger_share() -> None:
    workload = mixed_workload(Mixing(mixup_alpha=1.0, cutmix_alpha=0.0))
    [phase] = workload.phases
    [record, _] = epochs_of(list(make_trainer(workload, PLAIN, lr=1e-20).fit()))
    hits = 0
    with torch.no_grad():
        phase.module.train()
        phase.held_in_eval[0].eval()
        for batch in phase.open().train.epoch(1):
            assert batch.mixed
            dominant = batch.labels if batch.mixed.share >= 0.5 else batch.mixed.labels
            hits += int((phase.module(batch.inputs).argmax(dim=2) == dominant).sum())
    assert record.train_acc[0] == pytest.approx(hits / 24)
