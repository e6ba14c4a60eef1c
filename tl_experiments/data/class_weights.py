"""How much a mistake on each class counts."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from tl_experiments.runtime.errors import SettingError

ClassWeights = Literal["auto"] | Mapping[str, float] | None


def class_weights(wanted: ClassWeights, *, labels: torch.Tensor, class_names: Sequence[str]) -> torch.Tensor | None:
    """Return a weight for each class, (C,) float32; None where all count the same.

    Args:
        wanted: auto, or the weights of some classes by name; the others have 1.
        labels: (N,) int64, of the training images.
        class_names: C of them.

    Raises:
        SettingError: there is no such class.
    """
    if wanted is None:
        return None
    if wanted == "auto":
        return inverse_frequencies(labels, num_classes=len(class_names))
    assert not isinstance(wanted, str)
    require_classes(wanted, class_names=class_names)
    return torch.tensor([wanted.get(name, 1.0) for name in class_names], dtype=torch.float32)


def inverse_frequencies(labels: torch.Tensor, *, num_classes: int) -> torch.Tensor:
    """N / (classes that have images x images of the class): all classes weigh the same, and an image 1 on average.

    A class without images has weight 0; no image asks for it.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    weights = len(labels) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, 0.0).float()


def require_classes(weights: Mapping[str, float], *, class_names: Sequence[str]) -> None:
    """Raise SettingError where a weight is that of no class."""
    for name in weights:
        if name not in class_names:
            near = difflib.get_close_matches(name, class_names, n=1, cutoff=0.6)
            listed = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
            meant = f"; did you mean {near[0]}?" if near else f"; the {len(class_names)} classes are {listed}"
            raise SettingError(f"class_weights: the dataset has no class {name}{meant}")
