"""A folder that `timm.create_model("local-dir:PATH", pretrained=True)` loads, or the Hugging Face hub keeps."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from tl_experiments.data.transforms import Canvas
from tl_experiments.inference.description import Description
from tl_experiments.inference.export_graph import Loaded
from tl_experiments.models.model import Model
from tl_experiments.runtime.errors import SettingError

INSTEAD = "expected --format onnx, pt2 or safetensors, which hold any model"


def write_timm(model: Model, folder: Path, *, description: Description) -> None:
    """Write config.json and model.safetensors in timm's names: network, classifier, class names and preprocessing.

    Raises:
        SettingError: the model is no network of timm with one linear layer behind it.
    """
    given = getattr(model.backbone.body, "pretrained_cfg", None)
    if given is None:
        raise SettingError(f"--format timm: {model.backbone.name} is no network of timm; {INSTEAD}")
    if not isinstance(model.head, nn.Linear):
        kind = str(description.head["_target_"]).rpartition(".")[2]
        raise SettingError(f"--format timm: networks of timm end in a linear layer, and this head is {kind}; {INSTEAD}")
    classifier = given.get("classifier")
    tensors = {
        **model.backbone.body.state_dict(),
        **{f"{classifier}.{name}": getattr(model.head, name).detach() for name in ("weight", "bias")},
    }
    with torch.device("meta"):  # its own weights are not wanted
        whole = timm.create_model(given["architecture"], num_classes=len(description.class_names))
    expected = {name: tensor.shape for name, tensor in whole.state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in tensors.items()}:
        raise SettingError(
            f"--format timm: timm's {given['architecture']} has more than one linear layer behind it; {INSTEAD}"
        )
    whole.load_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True)
    whole.pretrained_cfg = {**given, **_preprocessing(description)}  # type: ignore[assignment]
    labels = list(description.class_names)
    save_for_hf(whole, str(folder), model_config={"label_names": labels}, safe_serialization=True)


def read_timm(folder: Path) -> Loaded:
    """Load the folder as its users do, on the CPU: normalised images to logits."""
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return whole(torch.from_numpy(images)).numpy()

    return answer


def _preprocessing(description: Description) -> Mapping[str, Any]:
    """Return keys of timm's pretrained_cfg, and None for those that would overrule them or tell of other weights."""
    canvas, normalise = description.canvas, description.normalise
    return {
        "num_classes": len(description.class_names),
        "input_size": (3, canvas.crop, canvas.crop),
        "interpolation": canvas.interpolation,
        "crop_pct": _crop_pct(canvas),
        "crop_mode": "center",
        "mean": normalise.mean,
        "std": normalise.std,
        "tag": None,
        "test_input_size": None,
        "test_crop_pct": None,
    }


def _crop_pct(canvas: Canvas) -> float:
    """Return the share of the canvas that is kept, such that timm's floor(crop / crop_pct) is the canvas."""
    share = canvas.crop / canvas.size
    return share if math.floor(canvas.crop / share) == canvas.size else math.nextafter(share, 0)
