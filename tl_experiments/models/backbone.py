"""A pretrained network without its classification layer: images in, pooled features out."""

from collections.abc import Sequence

import torch
from torch import nn

from tl_experiments.models.input_spec import InputSpec
from tl_experiments.runtime.errors import SettingError

DEFAULT_WEIGHTS = "default"  # `backbone.weights` for the weights that the library recommends
SMALLEST = 32  # pixels; below it the strides of the usual networks leave nothing


class Backbone(nn.Module):
    """Any network behind one face."""

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        feature_dim: int,
        input_spec: InputSpec,
        weights_id: str,
        stages: Sequence[str] = (),
    ) -> None:
        """Wrap a network.

        Args:
            body: (B, 3, S, S) → (B, feature_dim).
            name: of the architecture.
            feature_dim: width of the features.
            input_spec: what the images must look like.
            weights_id: where the weights come from, for people.
            stages: names in the body of the layers that end a stage each, in order.
        """
        super().__init__()
        self.body = body
        self.name = name
        self.feature_dim = feature_dim
        self.input_spec = input_spec
        self.weights_id = weights_id
        self.stages = tuple(stages)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, 3, S, S) to features (B, feature_dim)."""
        return self.body(images)


def choose_image_size(
    *, name: str, own: int, wanted: int | None, preferred: int | None, smallest: int = SMALLEST, fixed: bool = False
) -> int:
    """Decide on the size of the images.

    Args:
        name: of the architecture.
        own: the size of the weights.
        wanted: by the user; it wins, or is refused.
        preferred: by the dataset; taken where the architecture allows.
        smallest: that the architecture takes.
        fixed: whether it takes its own size only.

    Raises:
        SettingError: the architecture does not take the size that the user wants.
    """
    if wanted is not None and fixed and wanted != own:
        raise SettingError(f"backbone.image_size={wanted}: {name} takes {own} pixels only; leave it null")
    if wanted is not None and wanted < smallest:
        raise SettingError(f"backbone.image_size={wanted}: {name} takes {smallest} pixels or more")
    if wanted is not None:
        return wanted
    return preferred if preferred is not None and not fixed and preferred >= smallest else own
