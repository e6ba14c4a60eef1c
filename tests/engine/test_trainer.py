"""The loop on a real workload: what it reports, which weights it leaves, and what its bits depend on."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.images import load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.engine import schedulers
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import EpochRecord, FinalRecord, Progress, Record
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.precision import Precision
from tl_experiments.strategies.base import Phase, Workload, names
from tl_experiments.strategies.materials import SplitBatches
from tl_experiments.strategies.one_member import OneMember

CPU = torch.device("cpu")
FP32 = Precision("fp32", "cpu")
SPEC = InputSpec(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear", crop_pct=1.0)
FEATURE_DIM, NUM_CLASSES = 6, 3
TRAIN, VAL, TEST = 40, 20, 30  # samples; batches of 8: 5, 3 and 4 steps


def make_backbone(body: nn.Module, *, feature_dim: int) -> Backbone:
    return Backbone(body, name="small", feature_dim=feature_dim, input_spec=SPEC, weights_id="none")


def make_batches(
    num_samples: int, *, stream: int, num_members: int = 1, seeds: tuple[int, ...] | None = None
) -> FeatureBatches:
    """Features whose class a linear head can nearly find."""
    generator = torch.Generator().manual_seed(stream)
    features = torch.randn(num_samples, FEATURE_DIM, generator=generator)
    noise = torch.randn(num_samples, NUM_CLASSES, generator=generator)
    labels = (features[:, :NUM_CLASSES] + 0.7 * noise).argmax(dim=1)
    return FeatureBatches(features=features[None], labels=labels, batch_size=8, num_members=num_members, seeds=seeds)


def make_workload(
    seeds: tuple[int, ...] = (0,), *, epochs: Sequence[int] = (2,), dropout: float = 0.0, num_val: int = VAL
) -> Workload:
    """Heads of the given seeds on features, in one phase for each number of epochs."""
    bank = HeadBank(feature_dim=FEATURE_DIM, num_classes=NUM_CLASSES, seeds=seeds)
    backbone = make_backbone(nn.Identity(), feature_dim=FEATURE_DIM)
    phases = tuple(
        Phase(
            name=f"phase-{index}",
            module=nn.Sequential(nn.Dropout(dropout), bank),
            trained=names(bank),
            held_in_eval=(),
            epochs=count,
            open=lambda: SplitBatches(
                train=make_batches(TRAIN, stream=1, num_members=len(seeds), seeds=seeds),
                val=make_batches(num_val, stream=2, num_members=len(seeds)),
                at_the_end=lambda: (
                    make_batches(num_val, stream=2, num_members=len(seeds)),
                    make_batches(TEST, stream=3, num_members=len(seeds)),
                ),
            ),
            train_precision=FP32,
            infer_precision=FP32,
        )
        for index, count in enumerate(epochs)
    )
    return Workload(
        phases=phases,
        groups=param_groups(bank, all_parts(bank), has_member_axis=True),
        deployables=tuple(Model(backbone, bank.head(member)) for member in range(len(seeds))),
        trained=frozenset({"head.weight", "head.bias"}),
    )


def make_trainer(
    workload: Workload,
    *,
    lr: float = 0.1,
    scheduler: Callable[..., schedulers.Schedule] = schedulers.constant,
    seed: int = 0,
    log_every_steps: int = 2,
    compile: bool = False,
) -> Trainer:
    return Trainer(
        workload,
        updates=make_updates(
            workload.groups,
            optimizers=[partial(torch.optim.SGD, lr=lr)] * workload.num_members,
            schedulers=[scheduler] * workload.num_members,
            fused=True,
        ),
        device=CPU,
        options=TrainingOptions(seed=seed, log_every_steps=log_every_steps, compile=compile),
    )


def epochs_of(records: Sequence[Record]) -> list[EpochRecord]:
    return [record for record in records if isinstance(record, EpochRecord)]


def final_of(trainer: Trainer) -> FinalRecord:
    [final] = [record for record in trainer.test() if isinstance(record, FinalRecord)]
    return final


def weights_after(workload: Workload, **options) -> list[torch.Tensor]:
    """Train and return the weights of every member."""
    list(make_trainer(workload, **options).fit())
    return [workload.deployables[member].head.weight.detach().clone() for member in range(workload.num_members)]


def image_workload(*, held: bool) -> tuple[Workload, nn.BatchNorm2d]:
    """A convolution with BatchNorm on images, fine-tuned; its BatchNorm is held in eval mode or follows the data."""
    rng = np.random.default_rng(0)
    source = ArraySource(rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), np.arange(24) % NUM_CLASSES, "random")
    images = load_images(
        Split("train", source, np.arange(24)),
        canvas=Canvas(size=8, crop=8, interpolation="bilinear"),
        workers=0,
        memory_bytes=10**6,
    )
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Model(make_backbone(body, feature_dim=4), linear_head(feature_dim=4, num_classes=NUM_CLASSES, seed=0))
    batches = ImageBatches(
        images=images, size=8, normalise=Normalise(SPEC.mean, SPEC.std), batch_size=8, device=CPU, seed=None
    )
    phase = Phase(
        name="finetune",
        module=OneMember(model),
        trained=names(model),
        held_in_eval=(norm,) if held else (),
        epochs=2,
        open=lambda: SplitBatches(
            train=replace(batches, seed=0),
            val=batches,
            at_the_end=lambda: (batches, batches),
        ),
        train_precision=FP32,
        infer_precision=FP32,
    )
    workload = Workload(
        phases=(phase,),
        groups=param_groups(model, all_parts(model), has_member_axis=False),
        deployables=(model,),
        trained=frozenset(model.state_dict()),
    )
    return workload, norm


def test_every_step_and_every_epoch_is_reported_and_the_test_once() -> None:
    trainer = make_trainer(make_workload())
    one_epoch = [("train", step, 5) for step in range(1, 6)] + [("val", step, 3) for step in range(1, 4)] + ["epoch"]
    fitted, tested = list(trainer.fit()), list(trainer.test())

    def told(records: Sequence[Record]) -> list[object]:
        return [
            (record.stage, record.step, record.num_steps) if isinstance(record, Progress) else type(record).__name__
            for record in records
        ]

    assert told(fitted) == [*one_epoch[:-1], "EpochRecord"] * 2
    assert told(tested) == [
        *(("calibration", step, 3) for step in range(1, 4)),
        *(("test", step, 4) for step in range(1, 5)),
        "FinalRecord",
    ]
    assert [(record.epoch, record.num_epochs) for record in fitted] == [(1, 2)] * 9 + [(2, 2)] * 9
    assert all(record.images_per_second > 0 for record in [*fitted, *tested[:-1]])


def test_epochs_under_the_last_schedule_are_numbered() -> None:
    workload = make_workload(epochs=(2, 3, 1))
    first, second, third = workload.phases
    for phases, numbers in (
        ((first, second, third), [None, None, None, None, None, 1]),
        ((first, second, replace(third, continues=True)), [None, None, 1, 2, 3, 4]),
        ((first, replace(second, solve=lambda *_: None)), [None] * 5),
    ):
        records = epochs_of(list(make_trainer(replace(workload, phases=phases)).fit()))
        assert [record.schedule_epoch for record in records] == numbers


def test_loss_and_accuracy_are_given_at_log_intervals_and_at_the_end_of_the_epoch_only() -> None:
    records = list(make_trainer(make_workload(), log_every_steps=2).fit())
    steps = [record for record in records if isinstance(record, Progress) and record.stage == "train"]
    assert [record.step for record in steps if record.epoch == 1 and record.loss is not None] == [2, 4, 5]
    assert all((record.loss is None) == (record.acc is None) for record in steps)
    first, _ = epochs_of(records)
    assert (first.train_loss, first.train_acc) == (steps[4].loss, steps[4].acc)


def test_training_learns_and_the_records_tell_it() -> None:
    records = epochs_of(list(make_trainer(make_workload(epochs=(20,))).fit()))
    assert records[-1].train_loss[0] < 0.7 * records[0].train_loss[0]
    assert records[-1].val_acc[0] > max(0.6, records[0].val_acc[0])


def test_the_best_weights_are_put_back_before_the_test() -> None:
    workload = make_workload((0, 1), epochs=(12,))
    trainer = make_trainer(workload, lr=3.0)
    records, weights = [], []
    for record in trainer.fit():
        if isinstance(record, EpochRecord):
            records.append(record)
            weights.append([workload.deployables[member].head.weight.detach().clone() for member in range(2)])
    best = [
        max(range(len(records)), key=lambda epoch: (records[epoch].val_acc[member], -records[epoch].val_loss[member]))
        for member in range(2)
    ]
    assert best[0] != best[1], "the test needs members whose best epochs differ"
    assert len(records) - 1 not in best, "the test needs epochs that are worse than the best"
    final = final_of(trainer)
    assert final.best_epoch == tuple(epoch + 1 for epoch in best)
    for member, epoch in enumerate(best):
        assert torch.equal(workload.deployables[member].head.weight, weights[epoch][member])
        assert final.best_val_acc[member] == records[epoch].val_acc[member]
        improved = [record.epoch for record in records if record.improved[member]]
        assert improved[-1] == epoch + 1


def test_the_final_record_is_what_the_deployable_says_of_the_test_split() -> None:
    workload = make_workload((0, 1))
    trainer = make_trainer(workload)
    list(trainer.fit())
    final = final_of(trainer)
    test = make_batches(TEST, stream=3)
    assert torch.equal(final.labels, test.labels)
    for member in range(2):
        with torch.no_grad():
            logits = workload.deployables[member](test.features[0])
        torch.testing.assert_close(final.logits[member], logits, rtol=0, atol=1e-5)
        assert final.acc[member] == pytest.approx((logits.argmax(dim=1) == test.labels).double().mean().item())


def test_the_loop_can_be_left_early_and_the_test_still_sees_the_best_weights() -> None:
    workload = make_workload(epochs=(50,))
    trainer = make_trainer(workload)
    for record in trainer.fit():
        if isinstance(record, EpochRecord) and record.epoch == 2:
            break
    final = final_of(trainer)
    assert final.best_epoch[0] in (1, 2)


@pytest.mark.parametrize("held", [True, False])
def test_held_modules_stay_in_eval_while_the_rest_trains(held: bool) -> None:
    workload, norm = image_workload(held=held)
    [phase] = workload.phases
    before = norm.running_mean.clone()
    for record in make_trainer(workload).fit():
        if isinstance(record, Progress) and record.stage == "train":
            assert phase.module.training
            assert norm.training is not held
        elif isinstance(record, Progress):
            assert not phase.module.training
            assert not norm.training
    assert torch.equal(norm.running_mean, before) is held


def test_a_loss_that_is_no_longer_finite_ends_the_run_with_one_line() -> None:
    steps = make_trainer(make_workload(epochs=(3,)), lr=float("inf"), log_every_steps=100).fit()
    with pytest.raises(RunFailed) as caught:
        list(steps)
    message = str(caught.value)
    assert "\n" not in message
    assert "not finite in epoch 1, by step 5;" in message
    assert "smaller lr" in message


def test_a_loss_is_noticed_at_the_next_log_interval() -> None:
    with pytest.raises(RunFailed, match="by step 2;"):
        list(make_trainer(make_workload(), lr=float("inf"), log_every_steps=2).fit())


def test_the_same_seed_gives_the_same_bits() -> None:
    def run(seed: int) -> tuple[list[tuple[float, ...]], FinalRecord]:
        trainer = make_trainer(make_workload(dropout=0.5), seed=seed)
        losses = [record.train_loss + record.val_loss for record in epochs_of(list(trainer.fit()))]
        return losses, final_of(trainer)

    first, again, other = run(0), run(0), run(1)
    assert first[0] == again[0] != other[0]
    assert torch.equal(first[1].logits, again[1].logits)
    assert not torch.equal(first[1].logits, other[1].logits)


def test_dropout_does_not_depend_on_what_others_draw_from_the_global_generator() -> None:
    [quiet] = weights_after(make_workload(dropout=0.5))
    torch.manual_seed(1234)
    workload = make_workload(dropout=0.5)
    for _ in make_trainer(workload).fit():
        torch.rand(3)
    assert torch.equal(workload.deployables[0].head.weight, quiet)


def test_evaluation_and_logging_do_not_move_dropout() -> None:
    [reference] = weights_after(make_workload(dropout=0.5))
    [longer_val] = weights_after(make_workload(dropout=0.5, num_val=VAL * 3))
    [more_syncs] = weights_after(make_workload(dropout=0.5), log_every_steps=1)
    assert torch.equal(longer_val, reference)
    assert torch.equal(more_syncs, reference)


def test_every_step_has_its_own_dropout() -> None:
    """With a rate that moves nothing, an epoch's mean loss changes by its masks alone."""

    def losses(dropout: float) -> list[float]:
        records = list(make_trainer(make_workload(dropout=dropout), lr=1e-20).fit())
        return [record.train_loss[0] for record in epochs_of(records)]

    still, moving = losses(0.0), losses(0.5)
    assert still[0] == pytest.approx(still[1], rel=1e-6)
    assert abs(moving[0] - moving[1]) > 1e-3


def test_members_train_side_by_side_as_each_alone() -> None:
    together = weights_after(make_workload((0, 1), epochs=(5,)))
    for member, seed in enumerate((0, 1)):
        [alone] = weights_after(make_workload((seed,), epochs=(5,)))
        assert torch.equal(together[member], alone)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_member_has_the_same_bits_whatever_its_neighbours_are() -> None:
    _, member = weights_after(make_workload((0, 1)))
    same, *_ = weights_after(make_workload((1, 2, 3)))
    assert torch.equal(same, member)


def test_epochs_are_counted_over_all_phases_and_records_name_them() -> None:
    records = epochs_of(list(make_trainer(make_workload(epochs=(2, 1))).fit()))
    told = [(record.phase, record.epoch, record.num_epochs) for record in records]
    assert told == [("phase-0", 1, 3), ("phase-0", 2, 3), ("phase-1", 3, 3)]


@pytest.mark.parametrize(
    "scheduler",
    [
        schedulers.constant,
        partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=0.0),
        partial(schedulers.step, step_size=1, gamma=0.1),
        partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
    ],
    ids=["constant", "cosine", "step", "onecycle"],
)
def test_every_phase_has_the_whole_schedule(scheduler: Callable[..., schedulers.Schedule]) -> None:
    records = epochs_of(list(make_trainer(make_workload(epochs=(2, 2)), scheduler=scheduler).fit()))
    rates = [record.lr[0] for record in records]
    assert rates[2:] == pytest.approx(rates[:2])


def test_the_rate_of_the_record_is_that_of_the_last_update() -> None:
    scheduler = partial(schedulers.step, step_size=1, gamma=0.5)
    records = epochs_of(list(make_trainer(make_workload((0, 1), epochs=(3,)), scheduler=scheduler).fit()))
    assert [record.lr for record in records] == [(0.1, 0.1), (0.05, 0.05), (0.025, 0.025)]


def test_the_rate_of_the_record_was_used_even_when_the_schedule_ends_at_zero() -> None:
    scheduler = partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=0.0)
    records = epochs_of(list(make_trainer(make_workload(epochs=(1,)), scheduler=scheduler).fit()))
    assert records[0].lr[0] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 4 / 5)))


def test_weights_that_the_last_update_spoilt_are_noticed_by_the_validation() -> None:
    workload = make_workload(epochs=(1,))
    [phase] = workload.phases
    batches = phase.open()
    whole = replace(batches, train=replace(batches.train, batch_size=TRAIN))
    one_step = replace(workload, phases=(replace(phase, open=lambda: whole),))
    with pytest.raises(RunFailed, match="validation loss is not finite in epoch 1"):
        list(make_trainer(one_step, lr=float("inf")).fit())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_module_trains_as_the_plain_one() -> None:
    plain, _ = image_workload(held=False)
    compiled, _ = image_workload(held=False)
    expected = [*make_trainer(plain).fit()]
    trainer = make_trainer(compiled, compile=True)
    for ours, theirs in zip(epochs_of([*trainer.fit()]), epochs_of(expected), strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-4)
    assert math.isfinite(final_of(trainer).loss[0])
    assert compiled.weights_sha256(0) != image_workload(held=False)[0].weights_sha256(0)
