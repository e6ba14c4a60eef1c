"""A loss or gradient that is not finite changes no weight, and is told; memory that is too small halves the batch."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from tests.engine.test_trainer import CPU, epochs_of, final_of, image_workload, make_workload
from tl_experiments.data.batches import Batch
from tl_experiments.engine import schedulers
from tl_experiments.engine.micro_batches import MicroBatches
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import Diverged, Halved, Record
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.heads import HeadBank
from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.memory import is_out_of_memory
from tl_experiments.strategies.base import Workload

ALL = torch.tensor([True])
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": partial(Adam, lr=0.1),
    "adamw": partial(AdamW, lr=0.1),
    "rmsprop": partial(RMSprop, lr=0.1, momentum=0.9),
    "nadam": partial(NAdam, lr=0.1),
    "adagrad": partial(Adagrad, lr=0.1),
}


def _updates(module: nn.Module, optimizer: Callable[..., Optimizer], *, count: int, fused: bool = True):
    groups = param_groups(module, all_parts(module), has_member_axis=isinstance(module, HeadBank))
    updates = make_updates(
        groups, optimizers=[optimizer] * count, schedulers=[schedulers.constant] * count, fused=fused
    )
    updates.begin(total_steps=9, steps_per_epoch=9)
    return updates


def _learn(module: nn.Module, *, spoil: float = 0.0) -> None:
    """Give every parameter a gradient, and one number of the first a bad one."""
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    if spoil:
        next(module.parameters()).grad.view(-1)[3] = spoil  # type: ignore[union-attr]


@pytest.mark.parametrize("good_steps", [0, 2])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("spoil", [math.nan, math.inf, -math.inf, 0.0])
def test_no_update_uses_a_bad_gradient_or_loss(optimizer: str, spoil: float, fused: bool, good_steps: int) -> None:
    module = nn.Linear(5, 4)
    updates = _updates(module, OPTIMIZERS[optimizer], count=1, fused=fused)
    for _ in range(good_steps):
        _learn(module)
        assert updates.step(ALL).tolist() == [True]
    weights = [parameter.detach().clone() for parameter in module.parameters()]
    state = {name: tensor.clone() for name, tensor in updates.state(0).items()}
    _learn(module, spoil=spoil)
    assert updates.step(torch.tensor([spoil != 0.0])).tolist() == [False]
    assert all(torch.equal(new, old) for new, old in zip(module.parameters(), weights, strict=True))
    assert all(torch.equal(updates.state(0)[name], tensor) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in module.parameters())
    _learn(module)
    assert updates.step(ALL).tolist() == [True]
    assert not torch.equal(next(module.parameters()), weights[0])
    undisturbed = nn.Linear(5, 4)
    undisturbed.load_state_dict(dict(zip(("weight", "bias"), weights, strict=True)))
    if good_steps == 0:  # the bad one leaves no trace: what follows is a first step
        theirs = _updates(undisturbed, OPTIMIZERS[optimizer], count=1, fused=fused)
        _learn(undisturbed)
        theirs.step(ALL)
        torch.testing.assert_close(module.weight, undisturbed.weight, rtol=0, atol=0)


def test_optimizers_that_can_look_themselves_are_not_waited_for() -> None:
    can = {name: _updates(nn.Linear(5, 4), optimizer, count=1)._looks_itself for name, optimizer in OPTIMIZERS.items()}
    assert can == {"sgd": True, "adam": True, "adamw": True, "rmsprop": False, "nadam": False, "adagrad": True}
    assert not _updates(nn.Linear(5, 4), partial(SGD, lr=0.1, momentum=0.9, dampening=0.1), count=1)._looks_itself


def test_the_zeros_that_sgd_begins_with_change_nothing() -> None:
    for options in ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {}):
        ours, plain = nn.Linear(5, 4), nn.Linear(5, 4)
        plain.load_state_dict(ours.state_dict())
        updates = _updates(ours, partial(SGD, lr=0.1, **options), count=1)
        theirs = SGD(
            [{"params": [plain.weight]}, {"params": [plain.bias], "weight_decay": 0.0}], lr=0.1, fused=True, **options
        )
        for _ in range(3):
            _learn(ours)
            _learn(plain)
            updates.step(ALL)
            theirs.step()
        assert torch.equal(ours.weight, plain.weight)
        assert torch.equal(ours.bias, plain.bias)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_bad_member_of_a_bank_stays_and_the_others_move(optimizer: str) -> None:
    bank = HeadBank(feature_dim=5, num_classes=4, seeds=(0, 1, 2))
    updates = _updates(bank, OPTIMIZERS[optimizer], count=3)
    _learn(bank)
    updates.step(ALL.expand(3))
    alone = HeadBank(feature_dim=5, num_classes=4, seeds=(0,))
    theirs = _updates(alone, OPTIMIZERS[optimizer], count=1)
    for _ in range(2):
        _learn(alone)
        theirs.step(ALL)
    before, state = bank.weight.detach().clone(), {name: t.clone() for name, t in updates.state(1).items()}
    _learn(bank)
    bank.weight.grad[1, 2, 3] = math.nan  # type: ignore[index]
    assert updates.step(torch.tensor([True, True, False])).tolist() == [True, False, False]
    assert torch.equal(bank.weight[1:], before[1:])
    assert all(torch.equal(updates.state(1)[name], tensor) for name, tensor in state.items())
    assert torch.equal(bank.weight[:1], alone.weight)


class Spoilt(nn.Module):
    """A head bank, one of whose steps has a loss that is not finite, or a gradient alone."""

    def __init__(self, bank: HeadBank, *, at: int, kind: str) -> None:
        super().__init__()
        self.bank, self.at, self.kind, self.steps = bank, at, kind, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.bank(inputs)
        if not self.training:
            return logits
        self.steps += 1
        if self.steps != self.at:
            return logits
        if self.kind == "loss":
            return logits + torch.tensor([math.nan, 0.0])[:, None, None]
        return logits + Blind.apply(logits)


class Blind(torch.autograd.Function):
    """Nothing, with a gradient that is none, for the first of two members."""

    @staticmethod
    def forward(context: object, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return torch.zeros_like(logits)

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return torch.stack([torch.full_like(gradient[0], math.inf), torch.zeros_like(gradient[1])])


def _spoilt(*, kind: str, at: int = 7) -> Workload:
    workload = make_workload((0, 1), epochs=(3,))
    [phase] = workload.phases
    bank = phase.module[1]  # type: ignore[index]
    return replace(workload, phases=(replace(phase, module=Spoilt(bank, at=at, kind=kind)),))


def _trainer(workload: Workload, **options: bool) -> Trainer:
    count = workload.num_members
    updates = make_updates(
        workload.groups,
        optimizers=[partial(SGD, lr=0.1)] * count,
        schedulers=[schedulers.constant] * count,
        fused=True,
    )
    return Trainer(workload, updates=updates, device=CPU, options=TrainingOptions(seed=0, log_every_steps=1, **options))


@pytest.mark.parametrize(("kind", "reason"), [("loss", "the training loss"), ("gradient", "a gradient")])
def test_stop_ends_the_member_and_leaves_its_weights_as_they_were(kind: str, reason: str) -> None:
    workload = _spoilt(kind=kind)
    seen: list[Record] = []
    for record in _trainer(workload).fit():
        seen.append(record)
        if isinstance(record, Diverged):
            break
    [diverged] = [record for record in seen if isinstance(record, Diverged)]
    assert diverged.member == 0
    assert diverged.reason.startswith(f"{reason} is not finite in epoch 2, by step 2; ")
    assert workload.deployables[0].head.weight.isfinite().all()
    best = [record.improved[0] for record in epochs_of(seen)]
    assert best == [True]


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_skip_goes_on_without_the_step_and_counts_it(kind: str) -> None:
    records = [*(trainer := _trainer(workload := _spoilt(kind=kind), skips_nonfinite=True)).fit()]
    assert not any(isinstance(record, Diverged) for record in records)
    metrics = [record.metrics(0) for record in epochs_of(records)]
    assert [own.get("train/skipped_steps") for own in metrics] == [None, 1, None]
    assert all(math.isfinite(value) for own in metrics for value in own.values())
    assert workload.deployables[0].head.weight.isfinite().all()
    assert all("train/skipped_steps" not in record.metrics(1) for record in epochs_of(records))
    assert math.isfinite(final_of(trainer).loss[0])


def test_skip_goes_on_when_the_first_steps_that_are_looked_at_were_left_out() -> None:
    records = [*_trainer(_spoilt(kind="loss", at=1), skips_nonfinite=True).fit()]
    assert not any(isinstance(record, Diverged) for record in records)
    assert [record.num_skipped for record in epochs_of(records)] == [(1, 0), (0, 0), (0, 0)]


def test_running_statistics_forget_a_batch_that_changed_no_weight() -> None:
    workload, norm = image_workload(held=False)
    [phase] = workload.phases
    poisoned = replace(phase, module=Poisoned(phase.module, at=2))
    [*_trainer(replace(workload, phases=(poisoned,)), skips_nonfinite=True).fit()]
    assert norm.running_mean.isfinite().all()
    assert norm.running_var.isfinite().all()


class Poisoned(nn.Module):
    """A network that is shown an image with an infinite pixel once."""

    def __init__(self, inner: nn.Module, *, at: int) -> None:
        super().__init__()
        self.inner, self.at, self.steps = inner, at, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        if self.training and self.steps == self.at:
            inputs = inputs.clone()
            inputs[0, 0, 0, 0] = math.inf
        return self.inner(inputs)


def test_skip_does_not_hide_a_run_in_which_nothing_is_finite_any_more() -> None:
    workload = make_workload(epochs=(3,))
    [phase] = workload.phases
    batches = phase.open()
    poisoned = replace(batches.train, features=torch.full_like(batches.train.features, math.nan))
    hopeless = replace(phase, open=lambda: replace(batches, train=poisoned))
    with pytest.raises(RunFailed, match="the training loss is not finite in epoch 1"):
        list(_trainer(replace(workload, phases=(hopeless,)), skips_nonfinite=True).fit())


class Narrow(nn.Module):
    """A network in memory that holds so many images."""

    def __init__(self, inner: nn.Module, *, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.widest = inner, room, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.inner(inputs)  # running statistics have moved when memory ends
        if self.training and len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        self.widest = max(self.widest, len(inputs))
        return outputs


def _narrow(room: int, *, held: bool = True) -> tuple[Workload, Narrow]:
    workload, _ = image_workload(held=held)
    [phase] = workload.phases
    module = Narrow(phase.module, room=room)
    return replace(workload, phases=(replace(phase, module=module),)), module


def test_halving_keeps_the_effective_batch() -> None:
    whole, _ = image_workload(held=True)
    [*_trainer(whole).fit()]
    workload, _ = _narrow(3)
    records = [*_trainer(workload, halves=True).fit()]
    assert [record.micro_batch for record in records if isinstance(record, Halved)] == [2]
    for name, tensor in workload.deployables[0].state_dict().items():
        torch.testing.assert_close(tensor, whole.deployables[0].state_dict()[name], rtol=1e-4, atol=1e-5)


def test_what_a_failed_attempt_moved_is_put_back() -> None:
    """Halves of two make BatchNorm see what it sees when it is asked for halves at once."""
    told, _ = _narrow(4, held=False)
    trainer = _trainer(told, halves=True)
    list(trainer.fit())
    asked, _ = _narrow(8, held=False)
    again = _trainer(asked, halves=True)
    again.load(replace(again.state(), micro_batch=4))
    list(again.fit())
    assert told.weights_sha256(0) == asked.weights_sha256(0)
    assert trainer.state().micro_batch == 4


def test_halves_of_odd_batches_are_nearly_equal() -> None:
    batch = Batch(torch.zeros(10, 3), torch.zeros(1, 10, dtype=torch.int64))
    assert [part.num_samples for part in batch.split(4)] == [3, 3, 2, 2]
    features = Batch(torch.zeros(2, 10, 3), torch.zeros(2, 10, dtype=torch.int64), sample_dim=1)
    assert [tuple(part.inputs.shape) for part in features.split(2)] == [(2, 5, 3), (2, 5, 3)]


def test_dropout_in_the_step_that_halves_is_that_of_a_run_that_began_with_halves() -> None:
    def trained(room: int, *, micro_batch: int | None) -> str:
        workload, module = _narrow(room)
        module.inner = nn.Sequential(nn.Dropout(0.5), module.inner)
        trainer = _trainer(workload, halves=True)
        trainer.load(replace(trainer.state(), micro_batch=micro_batch))
        list(trainer.fit())
        return workload.weights_sha256(0)

    assert trained(4, micro_batch=None) == trained(8, micro_batch=4)


def test_without_halving_memory_that_ends_is_an_error() -> None:
    workload, _ = _narrow(3)
    with pytest.raises(torch.OutOfMemoryError):
        list(_trainer(workload).fit())


def test_one_image_that_does_not_fit_is_an_error_too() -> None:
    workload, _ = _narrow(0)
    with pytest.raises(torch.OutOfMemoryError):
        list(_trainer(workload, halves=True).fit())


def test_other_errors_are_not_taken_for_memory() -> None:
    def fail(_: Batch, _is_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("shapes do not fit")

    batch = Batch(torch.zeros(4, 3), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatches(halves=True).run(fail, batch, begin_again=lambda: None)


def test_the_systems_own_refusal_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
