"""Writes a trained model so that it can be used without the run: weights as safetensors, everything else as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tl_experiments.data.transforms import ENLARGING, Canvas
from tl_experiments.models.model import Model
from tl_experiments.runtime.files import published_folder

FORMAT = 2  # of model.json; 1 had linear heads alone, and did not say so


def save_model(
    model: Model,
    folder: Path,
    *,
    class_names: Sequence[str],
    backbone: Mapping[str, Any],
    head: Mapping[str, Any],
    canvas: Canvas,
    weights_sha256: str,
    temperature: float,
    mirrors: bool,
) -> None:
    """Publish a folder with `model.safetensors` and `model.json`, which describes it; an earlier model makes way.

    Args:
        model: images (B, 3, S, S), normalised → logits (B, C).
        folder: of the model.
        class_names: C of them, in the order of the logits.
        backbone, head: how they were built, as their groups of the configuration say.
        canvas: how an image is resized and cropped.
        weights_sha256: digest of the tensors.
        temperature: by which logits are divided, so that the softmax can be believed.
        mirrors: whether it was fitted, and the model tested, on the mean of the probabilities of an image and its
            mirror image; the logarithm of this mean takes the place of logits then.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    spec = model.backbone.input_spec
    description = {
        "format": FORMAT,
        "backbone": {
            **backbone,
            "weights": None,  # they are in the file beside this one
            "image_size": spec.size,
            "feature_dim": model.backbone.feature_dim,
            "pretrained_weights": model.backbone.weights_id,
        },
        "head": dict(head),
        "class_names": list(class_names),
        "input": {
            "color": "RGB",
            "resize_shorter_side": canvas.size,
            "centre_crop": canvas.crop,
            "interpolation": canvas.interpolation,
            "interpolation_enlarging": ENLARGING,
            "scale": "1/255",
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
        "tta": "flip" if mirrors else "none",  # what the temperature and the run's scores hold for
        "temperature": temperature,
        "weights_sha256": weights_sha256,
    }
    with published_folder(folder) as making:
        save_file(tensors, making / "model.safetensors")
        (making / "model.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
