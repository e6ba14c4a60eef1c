"""From decoded images to calibrated probabilities: the one road of predict, export, serve and MLflow."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.data.transforms import Normalise, centre_crop
from tl_experiments.inference.description import Description
from tl_experiments.models.mirrors import mean_logits
from tl_experiments.models.model import Model
from tl_experiments.runtime.precision import Compute


class ImageClassifier(nn.Module):
    """A model with its input rules and calibration: canvases uint8 (B, 3, C, C) → probabilities float32 (B, K)."""

    def __init__(
        self,
        model: Model,
        *,
        description: Description,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Wrap a model; it is left in eval mode.

        Args:
            model: images (B, 3, S, S), normalised → logits (B, K).
            description: of it.
            memory_format: of its input.
        """
        super().__init__()
        self.model = model.eval()
        self.crop = description.canvas.crop
        self.normalise: Normalise = description.normalise
        self.mirrors = description.mirrors
        self.temperature = description.temperature
        self.memory_format = memory_format

    def forward(self, canvases: torch.Tensor) -> torch.Tensor:
        return (self.logits(canvases) / self.temperature).softmax(dim=-1)

    def logits(self, canvases: torch.Tensor) -> torch.Tensor:
        """Map canvases to logits float32 (B, K), which are log-probabilities where mirror images are seen too."""
        crops = centre_crop(canvases, self.crop)
        logits = self._of(crops)
        return mean_logits(logits, self._of(crops.flip(-1))) if self.mirrors else logits

    def _of(self, crops: torch.Tensor) -> torch.Tensor:
        return self.model(self.normalise(crops, self.memory_format)).float()


@dataclass(frozen=True)
class Classifier:
    """An image classifier on its device, with the precision and batch size that suit it.

    Attributes:
        description: of the model.
        network: on the device.
        compute: where and how.
    """

    description: Description
    network: ImageClassifier = field(repr=False)
    compute: Compute

    @property
    def batch_size(self) -> int:
        """Images at once that suit the device."""
        return self.compute.infer_batch_size

    def probabilities(self, canvases: torch.Tensor) -> torch.Tensor:
        """Classify any number of canvases, `batch_size` at a time.

        Each call of the network sees a whole batch, the last one filled up with black images, so that what is said of
        an image does not depend on how many others there are.

        Args:
            canvases: uint8 (N, 3, C, C), on any device.

        Returns:
            float32 (N, K) on the CPU; rows sum to 1.
        """
        return self._whole_batches(self.network, canvases)

    def logits(self, canvases: torch.Tensor) -> torch.Tensor:
        """Return what `probabilities` are made of, before the temperature: float32 (N, K) on the CPU."""
        return self._whole_batches(self.network.logits, canvases)

    @torch.inference_mode()
    def _whole_batches(self, of: Callable[[torch.Tensor], torch.Tensor], canvases: torch.Tensor) -> torch.Tensor:
        found = []
        for batch in canvases.split(self.batch_size):
            filled = F.pad(batch, (0, 0) * 3 + (0, self.batch_size - len(batch)))
            with self.compute.infer.autocast():
                found.append(of(filled.to(self.compute.device, non_blocking=True))[: len(batch)].float().cpu())
        return torch.cat(found) if found else torch.empty(0, len(self.description.class_names))
