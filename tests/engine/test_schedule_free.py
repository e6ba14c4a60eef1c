"""Schedule-free optimizers (Defazio et al. 2024): their average is evaluated and kept, training goes on as without."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from schedulefree import AdamWScheduleFree, SGDScheduleFree

from tests.engine.test_trainer import epochs_of, final_of, image_workload, make_workload
from tests.engine.training import make_trainer
from tl_experiments.engine.records import Progress
from tl_experiments.engine.single_updates import SingleUpdates
from tl_experiments.models.heads import HeadBank
from tl_experiments.runtime.errors import SettingError
from tl_experiments.strategies.base import Workload

OPTIMIZERS = {
    "adamw": partial(AdamWScheduleFree, lr=0.05, warmup_steps=3, weight_decay=0.01),
    "sgd": partial(SGDScheduleFree, lr=0.5, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_librarys_own_training_and_average(name: str) -> None:
    """A plain loop over the same batches, which turns to evaluation once at the end."""
    workload, plain = make_workload((0,), epochs=(3,)), make_workload((0,), epochs=(3,))
    [phase] = plain.phases
    bank = next(module for module in phase.module.modules() if isinstance(module, HeadBank))
    optimizer = OPTIMIZERS[name]([{"params": [bank.weight]}, {"params": [bank.bias], "weight_decay": 0.0}])
    optimizer.train()
    for epoch in (1, 2, 3):
        for batch in phase.open().train.epoch(epoch):
            loss = torch.nn.functional.cross_entropy(phase.module(batch.inputs)[0], batch.labels[0])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    trainer, averages = make_trainer(workload, OPTIMIZERS[name]), []
    for record in trainer.fit():
        if isinstance(record, Progress) and record.stage == "val" and record.step == record.num_steps:
            averages.append(workload.trained_tensors(0)["head.weight"].clone())
    trained = trainer.state().members[0].tensors["weights/head.weight"]
    torch.testing.assert_close(trained, bank.weight[0])
    optimizer.eval()
    torch.testing.assert_close(averages[-1], bank.weight[0].detach())
    assert not torch.allclose(averages[-1], trained, atol=1e-4)
    best = final_of(trainer).best_epoch[0]
    assert torch.equal(workload.trained_tensors(0)["head.weight"], averages[best - 1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_any_record_it_goes_on_with_the_same_bits(name: str) -> None:
    def start() -> tuple[Workload, object]:
        workload = image_workload(held=True)[0]
        return workload, make_trainer(workload, OPTIMIZERS[name], clip_grad_norm=0.5)

    workload, trainer = start()
    told = [(record.epoch, record.val_loss) for record in epochs_of([*trainer.fit()])]  # type: ignore[attr-defined]
    final, weights = final_of(trainer), workload.weights_sha256(0)  # type: ignore[arg-type]
    workload, trainer = start()
    for _ in trainer.fit():  # type: ignore[attr-defined]
        state = trainer.state()  # type: ignore[attr-defined]
        own = state.members[0]
        tensors = {name: tensor.clone() for name, tensor in own.tensors.items()}
        other, again = start()
        again.load(replace(state, members=(replace(own, tensors=tensors),)))  # type: ignore[attr-defined]
        left = [(record.epoch, record.val_loss) for record in epochs_of([*again.fit()])]  # type: ignore[attr-defined]
        assert left == told[state.epochs :]
        assert torch.equal(final_of(again).logits, final.logits)  # type: ignore[arg-type]
        assert other.weights_sha256(0) == weights


def test_a_head_is_trained_by_the_library_itself() -> None:
    trainer = make_trainer(make_workload((0,)), OPTIMIZERS["sgd"])
    assert isinstance(trainer._updates, SingleUpdates)
    with pytest.raises(ValueError, match="cannot be updated together"):
        make_trainer(make_workload((0, 1)), OPTIMIZERS["sgd"])


def test_statistics_of_other_weights_are_refused() -> None:
    with pytest.raises(SettingError, match="batchnorm=eval"):
        make_trainer(image_workload(held=False)[0], OPTIMIZERS["adamw"])


def test_phases_that_train_other_parameters_are_refused() -> None:
    with pytest.raises(SettingError, match="one phase"):
        make_trainer(make_workload((0,), epochs=(1, 1)), OPTIMIZERS["adamw"])
