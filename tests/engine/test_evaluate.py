"""A pass without gradients gives what the module says of every sample, in order."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.engine.evaluate import Evaluation, Position, evaluate
from tl_experiments.engine.records import Progress, Stage
from tl_experiments.models.heads import HeadBank
from tl_experiments.runtime.precision import Precision

NUM_SAMPLES, FEATURE_DIM, NUM_CLASSES = 30, 5, 4


def make_bank() -> HeadBank:
    return HeadBank(feature_dim=FEATURE_DIM, num_classes=NUM_CLASSES, seeds=(0, 1))


def make_batches(batch_size: int) -> FeatureBatches:
    generator = torch.Generator().manual_seed(0)
    return FeatureBatches(
        features=torch.randn(1, NUM_SAMPLES, FEATURE_DIM, generator=generator),
        labels=torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator),
        batch_size=batch_size,
        num_members=2,
    )


def run(
    module: nn.Module, batches: FeatureBatches, *, precision: str = "fp32", stage: Stage = "test"
) -> tuple[list[Progress], Evaluation]:
    steps = evaluate(
        module,
        batches,
        num_members=2,
        device=torch.device("cpu"),
        precision=Precision(precision, "cpu"),
        position=Position("feature", stage, 3, 10),
    )
    records = []
    while True:
        try:
            records.append(next(steps))
        except StopIteration as end:
            return records, end.value


def test_every_sample_is_seen_once_in_order() -> None:
    bank, batches = make_bank(), make_batches(8)
    _, evaluation = run(bank, batches)
    with torch.no_grad():
        expected = torch.stack([bank.head(member)(batches.features[0]) for member in range(2)])
    torch.testing.assert_close(evaluation.logits, expected)
    assert evaluation.labels.tolist() == [batches.labels.tolist()] * 2
    for member in range(2):
        loss = F.cross_entropy(expected[member], batches.labels).item()
        assert evaluation.means.loss[member] == pytest.approx(loss)
        hits = (expected[member].argmax(dim=1) == batches.labels).sum().item()
        assert evaluation.means.acc[member] == hits / NUM_SAMPLES
    assert evaluation.means.loss[0] != evaluation.means.loss[1]


def test_the_probabilities_of_an_image_and_its_mirror_image_are_averaged() -> None:
    bank, plain = make_bank(), make_batches(8)
    mirrored = replace(plain, features=plain.features.flip(-1))
    both = replace(plain, mirrored=mirrored.features[0])
    [(_, first), (_, second), (_, together)] = (run(bank, batches) for batches in (plain, mirrored, both))
    expected = (first.logits.softmax(dim=-1) + second.logits.softmax(dim=-1)) / 2
    torch.testing.assert_close(together.logits.softmax(dim=-1), expected)
    torch.testing.assert_close(together.logits.exp(), expected)
    for member in range(2):
        loss = F.nll_loss(expected[member].log(), plain.labels).item()
        assert together.means.loss[member] == pytest.approx(loss, rel=1e-5)


def test_a_step_is_reported_with_its_place() -> None:
    records, _ = run(make_bank(), make_batches(8))
    places = [(r.phase, r.stage, r.epoch, r.num_epochs, r.step, r.num_steps) for r in records]
    assert places == [("feature", "test", 3, 10, step, 4) for step in range(1, 5)]
    assert all(record.loss is None and record.images_per_second > 0 for record in records)


def test_the_means_do_not_depend_on_the_size_of_the_batches() -> None:
    [(_, small), (_, large)] = (run(make_bank(), make_batches(size)) for size in (7, 30))
    assert small.means.loss == pytest.approx(large.means.loss)
    assert small.means.acc == large.means.acc


def test_the_module_is_in_eval_and_no_gradient_is_kept() -> None:
    dropout = nn.Dropout(0.9)
    module = nn.Sequential(dropout, make_bank()).train()
    first, second = (run(module, make_batches(8))[1] for _ in range(2))
    assert not module.training
    assert not dropout.training
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_global_generator_does_not_move() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run(nn.Sequential(nn.Dropout(0.5), make_bank()), make_batches(8))
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_are_float32_in_any_precision() -> None:
    class Doubled(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs).expand(2, -1, -1) * 2

    torch.manual_seed(0)
    module = Doubled(FEATURE_DIM, NUM_CLASSES)
    [(_, full), (_, half)] = (run(module, make_batches(8), precision=name) for name in ("fp32", "bf16"))
    assert full.logits.dtype == half.logits.dtype == torch.float32
    assert not torch.equal(full.logits, half.logits)
    torch.testing.assert_close(full.logits, half.logits, rtol=0.05, atol=0.05)


def test_what_nobody_looks_at_is_not_kept() -> None:
    bank, batches = make_bank(), make_batches(8)
    _, seen = run(bank, batches, stage="test")
    assert torch.equal(run(bank, batches, stage="calibration")[1].logits, seen.logits)
    _, checked = run(bank, batches, stage="val")
    assert checked.means == seen.means
    assert (seen.logits.numel(), checked.logits.numel(), checked.labels.numel()) == (
        2 * NUM_SAMPLES * NUM_CLASSES,
        0,
        0,
    )
