"""What training minimises; validation and test look at plain cross-entropy."""

from dataclasses import dataclass, field

import torch

from tl_experiments.data.batches import Batch
from tl_experiments.engine.metrics import member_losses


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Cross-entropy, softened and weighted.

    Attributes:
        label_smoothing: in [0, 1): the share of the target that all classes are given alike (Szegedy et al. 2016).
        class_weights: (C,) float32 on the device, how much each class counts; None: all the same.
    """

    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = field(default=None, repr=False)

    def __call__(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of every sample, (K, B) float32, of logits (K, B, C); of mixed images, both labels' by share.

        A batch's loss is their mean. PyTorch's own divides by the sum of the batch's weights instead, by which a
        sample would count more or less for the company it is in.
        """
        losses = self._of(logits, batch.labels)
        if batch.mixed is None:
            return losses
        others = self._of(logits, batch.mixed.labels)
        return losses * batch.mixed.share + others * (1.0 - batch.mixed.share)

    def _of(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return member_losses(logits, labels, label_smoothing=self.label_smoothing, class_weights=self.class_weights)


PLAIN = Loss()
