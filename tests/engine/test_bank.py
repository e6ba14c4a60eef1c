"""A member of a bank is, bit for bit, what it would be alone, whatever its neighbours are and do."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.engine import schedulers
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import Diverged, EpochRecord, FinalRecord, Progress, Record
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.precision import Precision
from tl_experiments.strategies.base import Phase, Workload, names
from tl_experiments.strategies.materials import SplitBatches

CPU = torch.device("cpu")
FP32 = Precision("fp32", "cpu")
SPEC = InputSpec(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bilinear", crop_pct=1.0)


@dataclass(frozen=True)
class Member:
    """What is its own."""

    seed: int
    optimizer: Callable[..., Optimizer]
    scheduler: Callable[..., schedulers.Schedule] = schedulers.constant


@dataclass(frozen=True)
class Task:
    """What members share."""

    feature_dim: int
    num_classes: int
    batch_size: int
    num_train: int
    num_val: int
    num_views: int = 1
    epochs: int = 2

    def split(
        self, num_samples: int, *, stream: int, seeds: tuple[int, ...] | None, num_members: int
    ) -> FeatureBatches:
        generator = torch.Generator().manual_seed(stream)
        num_views = self.num_views if seeds else 1
        features = torch.randn(num_views, num_samples, self.feature_dim, generator=generator)
        labels = torch.randint(0, self.num_classes, (num_samples,), generator=generator)
        return FeatureBatches(
            features=features, labels=labels, batch_size=self.batch_size, num_members=num_members, seeds=seeds
        )

    def workload(self, seeds: tuple[int, ...]) -> Workload:
        bank = HeadBank(feature_dim=self.feature_dim, num_classes=self.num_classes, seeds=seeds)
        body = Backbone(nn.Identity(), name="none", feature_dim=self.feature_dim, input_spec=SPEC, weights_id="none")
        count = len(seeds)
        phase = Phase(
            name="feature",
            module=bank,
            trained=names(bank),
            held_in_eval=(),
            epochs=self.epochs,
            open=lambda: SplitBatches(
                train=self.split(self.num_train, stream=1, seeds=seeds, num_members=count),
                val=self.split(self.num_val, stream=2, seeds=None, num_members=count),
                at_the_end=lambda: (
                    self.split(self.num_val, stream=2, seeds=None, num_members=count),
                    self.split(self.num_val, stream=3, seeds=None, num_members=count),
                ),
            ),
            train_precision=FP32,
            infer_precision=FP32,
        )
        return Workload(
            phases=(phase,),
            groups=param_groups(bank, all_parts(bank), has_member_axis=True),
            deployables=tuple(Model(body, bank.head(member)) for member in range(count)),
            trained=frozenset({"head.weight", "head.bias"}),
        )


@dataclass(frozen=True)
class Trained:
    """How a bank ended, and all that was said of it."""

    workload: Workload
    weights: torch.Tensor
    biases: torch.Tensor
    records: list[Record]
    final: FinalRecord

    def of(self, member: int) -> list[object]:
        """Everything that was reported of one member but times, in order."""
        told: list[object] = []
        for record in self.records:
            if isinstance(record, EpochRecord):
                metrics = record.metrics(member)
                told.append({name: value for name, value in metrics.items() if not name.startswith("perf/")})
                told.append(record.improved[member])
            elif isinstance(record, Progress) and record.loss is not None and record.acc is not None:
                told.append((record.step, record.loss[member], record.acc[member]))
        told.append(self.final.metrics(member))
        return told


def make_trainer(workload: Workload, members: Sequence[Member]) -> Trainer:
    return Trainer(
        workload,
        updates=make_updates(
            workload.groups,
            optimizers=[member.optimizer for member in members],
            schedulers=[member.scheduler for member in members],
            fused=True,
        ),
        device=CPU,
        options=TrainingOptions(seed=0, log_every_steps=2),
    )


def train(task: Task, members: Sequence[Member]) -> Trained:
    workload = task.workload(tuple(member.seed for member in members))
    trainer = make_trainer(workload, members)
    records = list(trainer.fit())
    bank = workload.phases[0].module
    assert isinstance(bank, HeadBank)
    weights, biases = bank.weight.detach().clone(), bank.bias.detach().clone()
    [final] = [record for record in trainer.test() if isinstance(record, FinalRecord)]
    return Trained(workload, weights, biases, records, final)


def assert_same(bank: Trained, place: int, alone: Trained) -> None:
    """Weights at the end, everything reported, the test's logits and the best weights, all of them bit for bit."""
    assert torch.equal(bank.weights[place], alone.weights[0])
    assert torch.equal(bank.biases[place], alone.biases[0])
    assert bank.of(place) == alone.of(0)
    assert torch.equal(bank.final.logits[place], alone.final.logits[0])
    assert bank.workload.weights_sha256(place) == alone.workload.weights_sha256(0)


SCHEDULES = (
    partial(schedulers.cosine, warmup_epochs=0.0, min_lr_fraction=0.0),
    schedulers.constant,
    partial(schedulers.onecycle, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
    partial(schedulers.plateau, factor=0.1, patience=0),
    partial(schedulers.step, step_size=1, gamma=0.3),
)
SETTINGS: dict[type[Optimizer], Sequence[dict[str, object]]] = {
    AdamW: ({}, {"weight_decay": 0.5, "betas": (0.8, 0.99)}, {"eps": 1e-3, "weight_decay": 0.0}),
    Adam: ({}, {"weight_decay": 0.5, "betas": (0.8, 0.99)}, {"eps": 1e-3}),
    SGD: ({}, {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.5, "nesterov": True}),
    RMSprop: ({}, {"momentum": 0.9, "weight_decay": 0.01}, {"alpha": 0.9, "eps": 1e-3}),
}


def make_members(count: int, optimizer: type[Optimizer] = AdamW) -> list[Member]:
    """Members with different seeds, rates, settings and schedules, that begin alike however many they are."""
    settings = SETTINGS[optimizer]
    return [
        Member(
            seed=17 * index + 3,
            optimizer=partial(optimizer, lr=1e-3 * (1 + index % 7), **settings[index % len(settings)]),
            scheduler=SCHEDULES[index % len(SCHEDULES)],
        )
        for index in range(count)
    ]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def one_of_two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LARGE = Task(feature_dim=1280, num_classes=10, batch_size=32, num_train=100, num_val=40)  # 4 steps, the last of 4
ODD = Task(feature_dim=7, num_classes=3, batch_size=5, num_train=33, num_val=11, epochs=4)  # 7 steps, the last of 3


def test_a_head_of_the_default_backbone_has_the_bits_that_it_has_alone(threads: int) -> None:  # noqa: ARG001
    members = make_members(50)
    alone = {index: train(LARGE, [members[index]]) for index in (0, 1, 2, 9, 49)}
    for count in (2, 3, 10, 50):
        bank = train(LARGE, members[:count])
        for index, expected in alone.items():
            if index < count:
                assert_same(bank, index, expected)
    assert len({run.workload.weights_sha256(0) for run in alone.values()}) == len(alone)


@pytest.mark.parametrize("optimizer", SETTINGS)
@pytest.mark.parametrize(
    "task",
    [ODD, replace(LARGE, epochs=1), replace(ODD, num_views=3), replace(ODD, batch_size=1, num_train=7, epochs=2)],
    ids=["odd", "large", "views", "one at a time"],
)
def test_every_optimizer_and_odd_sizes_keep_the_bits(
    one_of_two_threads: None,  # noqa: ARG001
    task: Task,
    optimizer: type[Optimizer],
) -> None:
    members = make_members(10, optimizer)
    alone = [train(task, [member]) for member in members[:3]]
    for count in (2, 3, 10):
        bank = train(task, members[:count])
        for index in range(min(count, 3)):
            assert_same(bank, index, alone[index])
    begin = HeadBank(feature_dim=task.feature_dim, num_classes=task.num_classes, seeds=(members[0].seed,))
    assert not torch.equal(alone[0].weights, begin.weight)


@pytest.mark.parametrize("seeds", [(4, 4, 4), (4, 4, 9)], ids=["shared", "mixed"])
@pytest.mark.parametrize("task", [ODD, replace(LARGE, epochs=1)], ids=["odd", "large"])
def test_members_that_share_a_seed_keep_their_bits_too(
    threads: int,  # noqa: ARG001
    task: Task,
    seeds: tuple[int, ...],
) -> None:
    """Where all see the same order, features are not copied for each: the product is another one."""
    members = [replace(member, seed=seed) for member, seed in zip(make_members(3), seeds, strict=True)]
    bank = train(task, members)
    for index, member in enumerate(members):
        assert_same(bank, index, train(task, [member]))


def test_a_member_has_the_same_bits_in_any_place(one_of_two_threads: None) -> None:  # noqa: ARG001
    members = make_members(10)
    forwards, backwards = train(ODD, members), train(ODD, members[::-1])
    for index in range(10):
        assert torch.equal(forwards.weights[index], backwards.weights[9 - index])
        assert forwards.of(index) == backwards.of(9 - index)


DIVERGING = Member(seed=5, optimizer=partial(AdamW, lr=1e30))  # its weight decay alone overflows


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_member_that_diverges_is_named_once_and_the_others_keep_their_bits(place: int) -> None:
    task, others = replace(ODD, epochs=4), make_members(2)
    members = [*others[:place], DIVERGING, *others[place:]]
    bank = train(task, members)
    named = [record for record in bank.records if isinstance(record, Diverged)]
    assert [record.member for record in named] == [place]
    assert "not finite in epoch 1, by step" in named[0].reason
    for index, other in enumerate(others):
        assert_same(bank, index + (index >= place), train(task, [other]))


def test_a_member_that_diverged_has_no_finite_loss_and_no_best_epoch() -> None:
    bank = train(replace(ODD, epochs=4), [*make_members(2), DIVERGING])
    epochs = [record for record in bank.records if isinstance(record, EpochRecord)]
    assert len(epochs) == 4
    for record in epochs:
        assert math.isnan(record.train_loss[2])
        assert math.isnan(record.val_loss[2])
        assert not record.improved[2]
        assert all(math.isfinite(value) for member in range(2) for value in record.metrics(member).values())
    assert bank.final.best_epoch[2] == 0
    assert min(bank.final.best_epoch[:2]) >= 1


def test_a_member_that_diverges_late_keeps_its_best_epoch() -> None:
    """With a learning rate that rises from sensible to absurd."""
    rising = partial(schedulers.step, step_size=1, gamma=1e18)
    late = Member(seed=5, optimizer=partial(AdamW, lr=1e-3), scheduler=rising)
    task = replace(ODD, epochs=6)
    bank = train(task, [*make_members(2), late])
    assert [record.member for record in bank.records if isinstance(record, Diverged)] == [2]
    assert math.isfinite(bank.final.loss[2])
    best = bank.final.best_epoch[2]
    until_then = train(replace(task, epochs=best), [late])
    assert until_then.final.best_epoch == (best,)
    assert bank.workload.weights_sha256(2) == until_then.workload.weights_sha256(0)


def test_the_run_fails_when_no_member_is_left() -> None:
    with pytest.raises(RunFailed, match="not finite in epoch 1"):
        train(ODD, [DIVERGING, replace(DIVERGING, seed=6)])


def test_the_last_member_that_diverges_later_than_the_others_ends_the_run() -> None:
    late = Member(
        seed=5,
        optimizer=partial(AdamW, lr=1e-3),
        scheduler=partial(schedulers.step, step_size=1, gamma=1e30),
    )
    seen: list[Record] = []
    members = [DIVERGING, late]
    workload = replace(ODD, epochs=4).workload(tuple(member.seed for member in members))
    trainer = make_trainer(workload, members)
    with pytest.raises(RunFailed, match="not finite in epoch 2"):
        seen.extend(trainer.fit())
    assert [record.member for record in seen if isinstance(record, Diverged)] == [0]
