"""From the folder of a trained model to a network that classifies images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tl_experiments.build.targets import instantiate_node
from tl_experiments.config.checks import interpolation_problems
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.targets import target_problems
from tl_experiments.inference.description import Description
from tl_experiments.inference.image_classifier import Classifier, ImageClassifier
from tl_experiments.inference.saved_model import load_weights_into, require_same_shapes, saved_shapes
from tl_experiments.models.model import Model
from tl_experiments.runtime.errors import SettingError, UserError
from tl_experiments.runtime.precision import AUTO, choose, fastest_inference
from tl_experiments.runtime.process import process_context

SAID_OF_IT = ("feature_dim", "pretrained_weights")  # of a backbone in a description; it is not built with them


def build_trained_model(folder: Path, *, description: Description, allow_targets: Sequence[str] = ()) -> Model:
    """Build a network and load its trained weights; in eval mode, on the CPU.

    Args:
        folder: of the model.
        description: of it, read.
        allow_targets: prefixes of the caller's own code that it may be built with.

    Raises:
        ConfigError: the description names code that is not allowed.
        SettingError: the network cannot be built, or the weights are damaged or are not its own.
    """
    nodes = {"backbone": dict(description.backbone), "head": dict(description.head), "allow_targets": allow_targets}
    if problems := [*target_problems(nodes), *interpolation_problems(nodes)]:
        raise ConfigError(f"{folder}: {problems[0]}")
    with torch.device("meta"):  # sizes are compared before anything is allocated: a made file may ask for all memory
        sketch = _built_as_told(nodes, description, folder=folder)
    require_same_shapes(saved_shapes(folder), sketch, folder=folder)
    model = _build(nodes, description)
    load_weights_into(model, folder, weights_sha256=description.weights_sha256)
    return model.eval()


def _built_as_told(nodes: Mapping[str, Any], description: Description, *, folder: Path) -> Model:
    """Raises SettingError: values do not suit what is built with them, or the canvas does not suit the network."""
    try:
        model = _build(nodes, description)
    except (ConfigError, UserError, MemoryError):
        raise
    except Exception as error:  # whatever a constructor does with a value that it never expected
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SettingError(f"{folder}: the network cannot be built from what model.json says ({reason})") from error
    if description.canvas.crop != model.backbone.input_spec.size:
        raise SettingError(
            f"{folder}: model.json crops images to {description.canvas.crop} pixels, but its network takes "
            f"{model.backbone.input_spec.size}; expected the model.json of a finished run, unchanged"
        )
    return model


def _build(nodes: Mapping[str, Any], description: Description) -> Model:
    backbone_node = {key: value for key, value in nodes["backbone"].items() if key not in SAID_OF_IT}
    allowed = nodes["allow_targets"]
    backbone = instantiate_node(
        backbone_node | {"weights": None}, "backbone", allow_targets=allowed, preferred_size=None, seed=0
    )
    kind = instantiate_node(nodes["head"], "head", allow_targets=allowed)
    return Model(
        backbone, kind.make(feature_dim=backbone.feature_dim, num_classes=len(description.class_names), seed=0)
    )


@contextmanager
def build_classifier(
    folder: Path,
    *,
    device: str = AUTO,
    precision: str = "fp32",
    batch_size: int | None = None,
    threads: int | None = None,
    allow_targets: Sequence[str] = (),
) -> Iterator[Classifier]:
    """Load a trained model for use in this process.

    Args:
        folder: of the model.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16, or auto for what is fastest.
        batch_size: images at once; None is what suits the device.
        threads: of the CPU; None keeps PyTorch's choice.
        allow_targets: prefixes of the caller's own code that it may be built with.

    Raises:
        UserError: it cannot be loaded, or the device is not there.
    """
    description = Description.load(folder)
    with process_context(device=device, threads=threads, deterministic=False) as place:
        model = build_trained_model(folder, description=description, allow_targets=allow_targets)
        name, size = model.backbone.name, model.backbone.input_spec.size
        if precision == AUTO:
            precision = fastest_inference(device=place, backbone=name, image_size=size)
        compute = choose(
            device=place,
            backbone=name,
            image_size=size,
            trains_backbone=False,
            learns_from_features=False,
            train_precision=AUTO,
            infer_precision=precision,
            memory_format=AUTO,
            infer_batch_size=batch_size,
        )
        model = model.to(device=place, memory_format=compute.memory_format)  # type: ignore[call-overload]
        network = ImageClassifier(model, description=description, memory_format=compute.memory_format)
        yield Classifier(description, network, compute)
