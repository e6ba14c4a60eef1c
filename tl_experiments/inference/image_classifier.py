"""From decoded images to calibrated probabilities: the one road of predict, export, serve and MLflow."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

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
class Answer:
    """What is on its way from the device; other work may be given to it meanwhile."""

    values: torch.Tensor = field(repr=False)
    arrival: torch.cuda.Event | None

    @classmethod
    def send(cls, values: torch.Tensor) -> Self:
        """Have values copied to the host as soon as they are known; nothing waits."""
        if values.device.type != "cuda":
            return cls(values, None)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record(torch.cuda.current_stream(values.device))
        return cls(host, arrival)

    def wait(self) -> torch.Tensor:
        """Return the values, on the CPU."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.values


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

    def ask(self, canvases: torch.Tensor, *, logits: bool = False) -> Answer:
        """Begin to classify at most `batch_size` canvases, of which a GPU makes nobody wait.

        Args:
            canvases: uint8 (B, 3, C, C), on any device; to copy from pinned memory nobody waits either.
            logits: ask for what `logits` returns instead of `probabilities`.
        """
        return Answer.send(self._answer(self.network.logits if logits else self.network, canvases))

    def _whole_batches(self, of: Callable[[torch.Tensor], torch.Tensor], canvases: torch.Tensor) -> torch.Tensor:
        found = [self._answer(of, batch).cpu() for batch in canvases.split(self.batch_size)] if len(canvases) else []
        return torch.cat(found) if found else torch.empty(0, len(self.description.class_names))

    @torch.inference_mode()
    def _answer(self, of: Callable[[torch.Tensor], torch.Tensor], canvases: torch.Tensor) -> torch.Tensor:
        """Map a batch, filled up with black images, to float32 (B, K) on the device."""
        there = canvases.to(self.compute.device, non_blocking=True)  # first: what is filled up is not pinned any more
        filled = F.pad(there, (0, 0) * 3 + (0, self.batch_size - len(canvases)))
        with self.compute.infer.autocast():
            return of(filled)[: len(canvases)].float()
