"""The best epoch of each member: highest val/acc, of equal ones the lowest val/loss, of equal ones the first."""

import math

import pytest
import torch

from tl_experiments.engine.best import BestWeights
from tl_experiments.engine.metrics import Means


def watch(*values: float) -> tuple[list[dict[str, torch.Tensor]], BestWeights]:
    tensors = [{"weight": torch.full((2,), value)} for value in values]
    return tensors, BestWeights(tensors)


def means(acc: tuple[float, ...], loss: tuple[float, ...]) -> Means:
    return Means(acc=acc, loss=loss)


def test_accuracy_comes_first_then_the_lower_loss_then_the_earlier_epoch() -> None:
    _, best = watch(0.0)
    epochs = [(0.5, 1.0), (0.6, 9.0), (0.6, 2.0), (0.6, 2.0), (0.5, 0.1), (0.6, 3.0), (0.7, 9.0)]
    told = [best.update(epoch, means((acc,), (loss,)))[0] for epoch, (acc, loss) in enumerate(epochs, start=1)]
    assert told == [True, True, True, False, False, False, True]
    assert (best.epoch, best.acc) == ([7], [0.7])


def test_the_first_epoch_is_the_best_so_far_even_when_nothing_was_right() -> None:
    _, best = watch(0.0)
    assert best.update(1, means((0.0,), (9.0,))) == (True,)
    assert best.update(2, means((0.0,), (5.0,))) == (True,)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_an_epoch_whose_loss_is_not_finite_is_never_the_best(loss: float) -> None:
    tensors, best = watch(1.0, 1.0)
    assert best.update(1, means((0.9, 0.1), (loss, 1.0))) == (False, True)
    assert best.update(2, means((0.2, 0.9), (1.0, loss))) == (True, False)
    tensors[0]["weight"].fill_(math.nan)
    assert best.update(3, means((1.0, 1.0), (loss, loss))) == (False, False)
    best.restore()
    assert tensors[0]["weight"].tolist() == [1.0, 1.0]
    assert (best.epoch, best.acc) == ([2, 1], [0.2, 0.1])


def test_each_member_gets_the_weights_of_its_own_best_epoch_back() -> None:
    tensors, best = watch(0.0, 0.0)
    for epoch, accs in enumerate([(0.9, 0.1), (0.5, 0.8), (0.4, 0.2)], start=1):
        for member in range(2):
            tensors[member]["weight"].fill_(10.0 * member + epoch)
        best.update(epoch, means(accs, (1.0, 1.0)))
    storage = [member["weight"].data_ptr() for member in tensors]
    best.restore()
    assert [member["weight"].tolist() for member in tensors] == [[1.0, 1.0], [12.0, 12.0]]
    assert best.epoch == [1, 2]
    assert [member["weight"].data_ptr() for member in tensors] == storage


def test_restoring_before_any_epoch_changes_nothing() -> None:
    tensors, best = watch(3.0)
    best.restore()
    assert tensors[0]["weight"].tolist() == [3.0, 3.0]


def test_parameters_that_need_a_gradient_can_be_restored() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    best = BestWeights([{"weight": parameter}])
    best.update(1, means((0.5,), (1.0,)))
    with torch.no_grad():
        parameter.fill_(9.0)
    best.restore()
    assert parameter.tolist() == [0.0, 0.0]
    assert parameter.requires_grad
