"""A trained model in a folder, for use without its run: weights as safetensors, the rest as JSON, text and images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tl_experiments.inference.description import Description
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.model import Model
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.files import published_folder

WEIGHTS = "model.safetensors"
CARD = "README.md"
FAST = 1  # level of compression: the images of many heads are written at once

Shapes = dict[str, tuple[int, ...]]


def save_model(
    model: Model, folder: Path, *, description: Description, examples: Sequence[np.ndarray], card: str
) -> None:
    """Publish a folder with a model, all of it at once; an earlier model makes way.

    Args:
        model: images (B, 3, S, S), normalised → logits (B, C).
        folder: of the model.
        description: of it.
        examples: uint8 (3, H, W), one for each of the description's.
        card: for people, in Markdown.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with published_folder(folder) as making:
        save_file(tensors, making / WEIGHTS)
        for name, image in zip(description.examples, examples, strict=True):
            pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
            Image.fromarray(pixels).save(making / name, compress_level=FAST)
        (making / CARD).write_text(card, encoding="utf-8")
        description.save(making)


def saved_shapes(folder: Path) -> Shapes:
    """Return the shapes of a saved model's tensors by name; no tensor is read.

    Raises:
        SettingError: the file is missing or damaged.
    """
    if not (folder / WEIGHTS).is_file():  # a pipe would keep its reader waiting
        raise _unreadable(folder, "no such file")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise _unreadable(folder, error) from error


def load_weights_into(model: Model, folder: Path, *, weights_sha256: str) -> None:
    """Load a saved model's tensors, once their digest is what it should be.

    Raises:
        SettingError: they are damaged, not those of the description, or do not fit.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _unreadable(folder, error) from error
    if tensors_sha256(tensors) != weights_sha256:
        raise SettingError(
            f"{folder / WEIGHTS}: are not the weights that model.json describes; expected both of one run"
        )
    require_same_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, model, folder=folder)
    model.load_state_dict(tensors)


def require_same_shapes(shapes: Shapes, model: Model, *, folder: Path) -> None:
    """See that a model, which may be on the meta device, has just these tensors.

    Raises:
        SettingError: it has not.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = sorted(name for name in own.keys() | shapes.keys() if own.get(name) != shapes.get(name))
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        raise SettingError(
            f"{folder}: its {len(wrong)} tensors {', '.join(wrong[:3])}{more} are not those of the network that "
            "model.json describes; it may need another version of timm or torchvision (`versions` in model.json)"
        )


def _unreadable(folder: Path, error: Exception | str) -> SettingError:
    return SettingError(f"{folder / WEIGHTS}: cannot be read ({error}); expected the weights of a finished run")
