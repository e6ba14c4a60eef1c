"""Records name the metrics as people find them in a tracker, and cannot be changed by who reads them."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from tl_experiments.engine.records import EpochRecord, FinalRecord, Progress
from tl_experiments.engine.scores import Scores

EPOCH = EpochRecord(
    phase="feature",
    epoch=3,
    num_epochs=10,
    train_loss=(0.1, 1.1),
    train_acc=(0.2, 1.2),
    val_loss=(0.3, 1.3),
    val_acc=(0.4, 1.4),
    lr=(0.5, 1.5),
    improved=(True, False),
    images_per_second=100.0,
    seconds=2.0,
)
SCORES = Scores(
    acc_top5=0.9, f1_macro=0.5, acc_balanced=0.6, ece=0.2, temperature=1.5, ece_calibrated=0.1, loss_calibrated=0.05
)
FINAL = FinalRecord(
    loss=(0.1, 1.1),
    acc=(0.2, 1.2),
    best_epoch=(3, 4),
    best_val_acc=(0.3, 1.3),
    scores=(SCORES, replace(SCORES, acc_top5=None, temperature=2.5)),
    logits=torch.zeros(2, 4, 3),
    labels=torch.zeros(4, dtype=torch.int64),
)


def test_an_epoch_has_its_metrics_by_name_for_each_member() -> None:
    assert EPOCH.metrics(0) == {
        "train/loss": 0.1,
        "train/acc": 0.2,
        "val/loss": 0.3,
        "val/acc": 0.4,
        "lr": 0.5,
        "perf/images_per_second": 100.0,
        "perf/epoch_seconds": 2.0,
    }
    assert EPOCH.metrics(1)["val/acc"] == 1.4


def test_the_summaries_have_their_names_for_each_member() -> None:
    assert FINAL.metrics(0) == {
        "val/acc_best": 0.3,
        "val/epoch_best": 3,
        "val/temperature": 1.5,
        "test/loss": 0.1,
        "test/acc": 0.2,
        "test/acc_top5": 0.9,
        "test/f1_macro": 0.5,
        "test/acc_balanced": 0.6,
        "test/ece": 0.2,
        "test/ece_calibrated": 0.1,
        "test/loss_calibrated": 0.05,
    }
    second = FINAL.metrics(1)
    assert (second["val/epoch_best"], second["test/acc"], second["val/temperature"]) == (4, 1.2, 2.5)
    assert "test/acc_top5" not in second, "there are five classes or fewer"


def test_a_summary_never_shares_its_name_with_a_curve() -> None:
    assert not EPOCH.metrics(0).keys() & FINAL.metrics(0).keys()


def test_records_do_not_change() -> None:
    step = Progress("feature", "train", 1, 1, 1, 1, images_per_second=1.0)
    for record, field in ((EPOCH, "val_acc"), (FINAL, "acc"), (step, "loss")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, field, (0.0,))
