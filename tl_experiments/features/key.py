"""What the bits of features depend on, besides the image."""

from dataclasses import asdict
from typing import Any

import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.canvas_store import canvas_fields
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.features.extract import Mirrored, View
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.runtime.fingerprint import versions
from tl_experiments.runtime.precision import Compute
from tl_experiments.runtime.process import processor_digest, processor_name

EXTRACTOR = 1  # raise it whenever the code that turns a canvas into features gives other bits


def feature_fields(
    *,
    backbone: Backbone,
    weights_sha256: str,
    canvas: Canvas,
    normalise: Normalise,
    compute: Compute,
    view: View | Mirrored | None,
) -> dict[str, Any]:
    """Return plain values under which features are stored.

    Args:
        backbone: for its name and the size of its images.
        weights_sha256: of all its tensors.
        canvas: what is drawn of each image.
        normalise: of the backbone.
        compute: where and how.
        view: of the images; None is the centre crop.
    """
    return {
        "extractor": EXTRACTOR,
        "image": {**canvas_fields(canvas), "size": backbone.input_spec.size, **asdict(normalise)},
        "view": _view(view),
        "backbone": {"name": backbone.name, "weights_sha256": weights_sha256, "batchnorm": "eval, folded"},
        "compute": {
            "precision": compute.infer.name,
            "layout": compute.layout,
            "batch_size": compute.infer_batch_size,
            "device": _device(compute.device),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
        "versions": versions(),
    }


def _view(view: View | Mirrored | None) -> Any:
    if isinstance(view, Mirrored):
        return "mirrored"
    return view and {"number": view.number, "augmentation": _augmentation(view.fixed_augmentation)}


def _augmentation(augmentation: Augmentation) -> dict[str, Any]:
    """Its values, and its kind: two kinds may have the same values."""
    return {"kind": type(augmentation).__name__, **asdict(augmentation)}


def _device(device: torch.device) -> dict[str, Any]:
    """What decides which kernels run; oneDNN chooses by more of the CPU than its capability says."""
    if device.type == "cuda":
        return {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {
        "cpu": processor_name(),
        "cpu_sha256": processor_digest(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def weights_of(backbone: Backbone) -> str:
    """Digest a backbone's tensors, buffers included."""
    return tensors_sha256(backbone.state_dict())
