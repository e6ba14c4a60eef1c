"""Averages of the weights: their values, what is evaluated and kept, and that training goes on as without them."""

from dataclasses import replace

import pytest
import torch

from tests.engine.test_nonfinite import _spoilt
from tests.engine.test_trainer import image_workload, make_workload
from tests.engine.training import make_trainer, of_member
from tl_experiments.engine.averages import Averages
from tl_experiments.engine.records import EpochRecord, Progress
from tl_experiments.strategies.base import Workload

DECAY = 0.9


def closed_form(iterates: list[torch.Tensor], *, decay: float = DECAY) -> torch.Tensor:
    """The average of weights, of which the first are those that it began with, in float64."""
    average = iterates[0].double()
    for number, weights in enumerate(iterates[1:], start=1):
        now = min(decay, (1 + number) / (10 + number))
        average = now * average + (1 - now) * weights.double()
    return average


def weights_by_step(workload: Workload, **options) -> list[dict[str, torch.Tensor]]:
    """The trained tensors of the first member before training and after each step."""
    now = [{name: tensor.clone() for name, tensor in workload.trained_tensors(0).items()}]
    for record in make_trainer(workload, **options).fit():
        if isinstance(record, Progress) and record.stage == "train":
            now.append({name: tensor.clone() for name, tensor in workload.trained_tensors(0).items()})
    return now


@pytest.mark.parametrize("kind", ["head", "images"])
def test_the_average_is_the_closed_form_of_the_weights_of_all_steps(kind: str) -> None:
    def start() -> Workload:
        return make_workload((0,), epochs=(3,)) if kind == "head" else image_workload(held=False)[0]

    iterates = weights_by_step(start())
    trainer = make_trainer(start(), ema_decay=DECAY)
    list(trainer.fit())
    state = trainer.state().members[0].tensors
    averaged = {name.removeprefix("average/weights/") for name in state if name.startswith("average/weights/")}
    floats = {name for name, tensor in iterates[0].items() if tensor.is_floating_point()}
    assert averaged == floats
    assert kind == "head" or {"backbone.body.1.running_mean"} < floats, "statistics of BatchNorm are averaged too"
    for name in averaged:
        expected = closed_form([own[name] for own in iterates])
        torch.testing.assert_close(state[f"average/weights/{name}"].double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(state[f"weights/{name}"], iterates[-1][name]), "the training weights go on as without it"


def test_the_average_is_what_is_validated_and_kept() -> None:
    workload = make_workload((0, 1), epochs=(4,))
    trainer = make_trainer(workload, ema_decay=DECAY)
    kept: dict[tuple[int, int], torch.Tensor] = {}
    records = []
    for record in trainer.fit():
        records.append(record)
        if isinstance(record, Progress) and record.stage == "val" and record.step == 1:
            in_place = [workload.trained_tensors(member)["head.weight"].clone() for member in range(2)]
            states = [own.tensors for own in trainer.state().members]
            for member in range(2):
                assert torch.equal(in_place[member], states[member]["average/weights/head.weight"])
                assert not torch.equal(in_place[member], states[member]["weights/head.weight"])
                kept[record.epoch, member] = in_place[member]
        elif isinstance(record, EpochRecord):
            for member in range(2):
                assert not torch.equal(workload.trained_tensors(member)["head.weight"], kept[record.epoch, member])
    [*_, final] = trainer.test()
    for member in range(2):
        best = kept[final.best_epoch[member], member]
        assert torch.equal(workload.trained_tensors(member)["head.weight"], best)


@pytest.mark.parametrize("member", [0, 2])
def test_a_member_of_a_bank_has_the_average_that_it_has_alone(member: int) -> None:
    def trained(*seeds: int) -> tuple[Workload, list]:
        workload = make_workload(seeds, epochs=(3,))
        trainer = make_trainer(workload, ema_decay=0.99, clip_grad_norm=0.3)
        return workload, [*trainer.fit(), *trainer.test()]

    (bank, told), (alone, own) = trained(5, 6, 7), trained(5 + member)
    assert bank.weights_sha256(member) == alone.weights_sha256(0)
    assert of_member(told, member) == of_member(own, 0)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_step_that_is_left_out_moves_no_average(kind: str) -> None:
    workload = _spoilt(kind=kind, at=3)
    trainer, seen = make_trainer(workload, ema_decay=DECAY, skips_nonfinite=True), []
    for record in trainer.fit():
        if isinstance(record, Progress) and record.stage == "train":
            state = [own.tensors["average/weights/head.weight"].clone() for own in trainer.state().members]
            seen.append(state)
    assert torch.equal(seen[2][0], seen[1][0])
    assert not torch.equal(seen[2][1], seen[1][1]), "the other member's"
    assert not torch.equal(seen[3][0], seen[2][0])


def test_what_begins_to_train_later_begins_its_average_then() -> None:
    """Its first update has the warm-up's first decay, and nothing stands for it before."""
    workload = make_workload((0,), epochs=(1, 1))
    first, second = workload.phases
    parts = replace(first, trained=frozenset({"bias"})), replace(second, trained=frozenset({"bias", "weight"}))
    workload = replace(workload, phases=parts)
    start = workload.trained_tensors(0)["head.weight"].clone()
    trainer = make_trainer(workload, ema_decay=DECAY)
    iterates = [start]
    for record in trainer.fit():
        if isinstance(record, Progress) and record.stage == "train":
            names = set(trainer.state().members[0].tensors)
            assert ("average/weights/head.weight" in names) is (record.epoch == 2)
            assert "average/weights/head.bias" in names
            if record.epoch == 2:
                iterates.append(workload.trained_tensors(0)["head.weight"].clone())
    average = trainer.state().members[0].tensors["average/weights/head.weight"]
    torch.testing.assert_close(average.double(), closed_form(iterates), rtol=1e-5, atol=1e-6)


def test_weights_that_were_solved_for_are_evaluated_themselves() -> None:
    weights = torch.zeros(2)
    averages = Averages([{"head.weight": weights}], decay=DECAY)
    averages.begin({"head.weight"}, step=0)
    weights.fill_(1.0)
    averages.begin({"head.weight"}, step=5, solved=True)
    weights.fill_(2.0)
    averages.put_in_place()
    assert not averages
    assert weights.tolist() == [2.0, 2.0]


def test_without_a_decay_nothing_is_kept_and_nothing_steps_aside() -> None:
    workload = make_workload((0,), epochs=(1,))
    trainer = make_trainer(workload)
    for record in trainer.fit():
        tensors = trainer.state().members[0].tensors
        assert not [name for name in tensors if name.startswith("average")]
        in_place = workload.trained_tensors(0)["head.weight"]
        assert tensors["weights/head.weight"].data_ptr() == in_place.data_ptr(), record
