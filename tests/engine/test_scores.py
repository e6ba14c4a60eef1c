"""The scores of the test split are those of the libraries that people compare with."""

import warnings

import numpy as np
import pytest
import torch

from tl_experiments.engine.scores import Scores, score


def scores_of(*, num_classes: int, num_true: int | None = None) -> tuple[Scores, torch.Tensor, torch.Tensor]:
    """Score logits that are right more often than not, of labels that are unevenly spread over the first classes."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(300, generator=generator) ** 2 * (num_true or num_classes)).long()
    logits = torch.randn(300, num_classes, generator=generator) + 1.5 * torch.eye(num_classes)[labels]
    return score(logits, labels, temperature=2.0), logits, labels


def test_they_are_those_of_torchmetrics() -> None:
    # Here, because it takes half a second.
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    scores, logits, labels = scores_of(num_classes=8)
    expected = {
        "test/acc_top5": multiclass_accuracy(logits, labels, 8, top_k=5, average="micro"),
        "test/f1_macro": multiclass_f1_score(logits, labels, 8, average="macro"),
        "test/acc_balanced": multiclass_accuracy(logits, labels, 8, average="macro"),
    }
    told = scores.metrics()
    assert {key: told[key] for key in expected} == pytest.approx({key: x.item() for key, x in expected.items()})
    assert len(set(expected.values())) == 3


def test_the_best_five_of_five_say_nothing() -> None:
    assert scores_of(num_classes=5)[0].acc_top5 is None
    assert "test/acc_top5" in scores_of(num_classes=6)[0].metrics()


def test_classes_that_the_split_lacks_are_no_misses() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores, logits, labels = scores_of(num_classes=8, num_true=6)
    predicted = logits.argmax(dim=1)
    assert predicted.max() > 5
    recalls = [(predicted[labels == label] == label).double().mean().item() for label in range(6)]
    assert scores.acc_balanced == pytest.approx(np.mean(recalls))


def test_calibration_changes_confidence_and_no_answer() -> None:
    scores, logits, labels = scores_of(num_classes=8)
    cooled = score(logits / 2, labels, temperature=1.0)
    assert (scores.ece_calibrated, scores.loss_calibrated) == (cooled.ece_calibrated, cooled.loss_calibrated)
    assert scores.ece != scores.ece_calibrated == cooled.ece
    assert scores.f1_macro == cooled.f1_macro
