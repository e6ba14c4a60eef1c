"""What the test split says of one model beside loss and accuracy."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from tl_experiments.engine.calibration import reliability
from tl_experiments.runtime.importing import importing

TOP = 5


@dataclass(frozen=True)
class Scores:
    """Scores of one model; all but `loss_calibrated` are in [0, 1].

    Attributes:
        acc_top5: share of the samples whose class is among the five likeliest; None where there are no more classes.
        f1_macro: mean over the classes that occur, true or predicted, of the harmonic mean of precision and recall.
        acc_balanced: mean recall of the classes that occur.
        ece: expected calibration error over 15 equal bins.
        temperature: by which logits are divided to be calibrated, above 0.
        ece_calibrated, loss_calibrated: ece and mean cross-entropy after that.
    """

    acc_top5: float | None
    f1_macro: float
    acc_balanced: float
    ece: float
    temperature: float
    ece_calibrated: float
    loss_calibrated: float

    def metrics(self) -> dict[str, float]:
        """Return them under the names that trackers show."""
        return {
            **({} if self.acc_top5 is None else {"test/acc_top5": self.acc_top5}),
            "test/f1_macro": self.f1_macro,
            "test/acc_balanced": self.acc_balanced,
            "test/ece": self.ece,
            "test/ece_calibrated": self.ece_calibrated,
            "test/loss_calibrated": self.loss_calibrated,
            "val/temperature": self.temperature,
        }


def score(logits: torch.Tensor, labels: torch.Tensor, *, temperature: float) -> Scores:
    """Score one model on the test split.

    Args:
        logits: (N, C) float32 on the CPU.
        labels: (N,) int64.
        temperature: fitted on another split.
    """
    with importing():
        from sklearn import metrics  # noqa: PLC0415 - a second that a plan must not wait for

    logits = logits.double().contiguous()
    true, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    in_top = (logits.topk(TOP).indices == labels[:, None]).any(dim=1) if logits.shape[1] > TOP else None
    recalls = metrics.recall_score(true, predicted, labels=np.unique(true), average="macro")
    return Scores(
        acc_top5=None if in_top is None else in_top.double().mean().item(),
        f1_macro=float(metrics.f1_score(true, predicted, average="macro")),
        acc_balanced=float(recalls),  # `balanced_accuracy_score` warns of classes that are predicted and never true
        ece=reliability(logits.softmax(dim=1), labels).error,
        temperature=temperature,
        ece_calibrated=reliability((logits / temperature).softmax(dim=1), labels).error,
        loss_calibrated=F.cross_entropy(logits / temperature, labels).item(),
    )
