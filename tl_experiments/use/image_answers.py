"""The bytes of image files in, names and probabilities out: what a trained model is asked from outside.

Models that lie in MLflow's stores call `ImageAnswers.of` and `answers`: their names and arguments stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch

from tl_experiments.build import build_classifier
from tl_experiments.data.decoding import decode
from tl_experiments.data.transforms import draw
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.runtime.errors import SettingError, UserError

__all__ = ["ImageAnswers", "UserError"]


class ImageAnswers:
    """A classifier that is asked with files' bytes; no file is opened by its name."""

    def __init__(self, classifier: Classifier) -> None:
        """Keep a classifier, open for as long as it is asked."""
        self._classifier = classifier

    @classmethod
    @contextmanager
    def of(
        cls, folder: str | Path, *, device: str = "auto", precision: str = "fp32", allow_targets: Sequence[str] = ()
    ) -> Iterator[Self]:
        """Load a trained model.

        Args:
            folder: of the model.
            device: auto, cpu, cuda or cuda:N.
            precision: fp32, bf16, or auto for what is fastest.
            allow_targets: prefixes of the caller's own code that it may be built with.

        Raises:
            UserError: it cannot be loaded, or the device is not there.
        """
        with build_classifier(
            Path(folder), device=device, precision=precision, allow_targets=allow_targets
        ) as classifier:
            yield cls(classifier)

    def answers(self, contents: Sequence[bytes], *, top_k: int = 1) -> dict[str, list[str] | list[float]]:
        """Classify images.

        Args:
            contents: bytes of N image files.
            top_k: answers for each image, at most one for each class.

        Returns:
            Columns of N: `label`, the most probable class, and `prob`, its probability; for more answers `label_2`,
            `prob_2` and so on.

        Raises:
            ImageError: one of them cannot be used; it is named by its row, from 0.
            SettingError: top_k is no number from 1 to that of the classes.
        """
        names = self._classifier.description.class_names
        if not 1 <= top_k <= len(names):
            raise SettingError(f"top_k={top_k}: expected 1 to {len(names)}, the number of classes")
        probs, labels = self._probabilities(list(contents)).topk(top_k, dim=1)
        columns: dict[str, list[str] | list[float]] = {}
        for rank in range(top_k):
            suffix = f"_{rank + 1}" if rank else ""
            columns[f"label{suffix}"] = [names[label] for label in labels[:, rank].tolist()]
            columns[f"prob{suffix}"] = probs[:, rank].tolist()
        return columns

    def _probabilities(self, contents: Sequence[bytes]) -> torch.Tensor:
        """Decode and classify as many at once as suit the device."""
        canvas, step = self._classifier.description.canvas, self._classifier.batch_size
        found = [torch.empty(0, len(self._classifier.description.class_names))]
        for start in range(0, len(contents), step):
            part = enumerate(contents[start : start + step], start)
            drawn = [draw(decode(content, name=f"row {row}"), canvas) for row, content in part]
            found.append(self._classifier.probabilities(torch.from_numpy(np.stack(drawn))))
        return torch.cat(found)
