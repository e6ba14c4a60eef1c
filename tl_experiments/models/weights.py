"""Weights from a file, into a network that they must fit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from tl_experiments.runtime.errors import WeightsError

FORMATS = (".safetensors", ".pth", ".pt")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training scripts keep the tensors
PREFIXES = (
    "module.",
    "model.",
    "backbone.",
    "body.",
)  # put before every name by wrappers, this project's export included
OFFLINE = "backbone=efficientnet_lite0 needs no download"
NUM_LISTED = 3


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of tensors; a pickle that holds anything else is refused.

    Args:
        path: `.safetensors`, or `.pth`/`.pt` with a state dict, possibly wrapped as {"state_dict": ...}.

    Raises:
        WeightsError: no such file, or not one of these.
    """
    expected = f"expected a {', '.join(FORMATS)} file of tensors"
    if not path.is_file():
        raise WeightsError(f"backbone.weights={path}: no such file; {expected}, default, or null")
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError, UnicodeDecodeError) as error:
        raise WeightsError(f"backbone.weights={path}: {first_line(error)}; {expected}") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a damaged pickle makes of itself
        raise WeightsError(
            f"backbone.weights={path}: refused, not only tensors or damaged ({type(error).__name__}); {expected}"
        ) from error
    return as_state_dict(loaded, source=str(path))


def as_state_dict(loaded: Any, *, source: str) -> dict[str, torch.Tensor]:
    """Take tensors by name out of what a file held.

    Args:
        loaded: a state dict, possibly wrapped as {"state_dict": ...}.
        source: for the message.

    Raises:
        WeightsError: it is anything else.
    """
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in loaded.items()
    ):
        raise WeightsError(f"backbone.weights={source}: holds no state dict; expected tensors by name")
    return dict(loaded)


def load_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], *, heads: Iterable[str], source: str) -> None:
    """Copy tensors into a network.

    Args:
        module: without its classification layer.
        tensors: by name, possibly under a wrapper's prefix.
        heads: names of classification layers, whose tensors are left out.
        source: for the message.

    Raises:
        WeightsError: lists what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    layers = tuple(f"{head}." for head in (*heads, "head"))
    found = {_strip(name, own): tensor for name, tensor in tensors.items()}
    found = {name: tensor for name, tensor in found.items() if name in own or not name.startswith(layers)}
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in own]
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in found.items()
        if name in own and tensor.shape != own[name].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names)
    if told:
        raise WeightsError(f"backbone.weights={source}: does not fit the architecture ({told}); expected all to match")
    module.load_state_dict(found, strict=False)


def _strip(name: str, own: Mapping[str, torch.Tensor]) -> str:
    """Remove wrappers' prefixes until the name is the network's, or none is left."""
    while name not in own:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            break
        name = name.removeprefix(prefix)
    return name


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:NUM_LISTED])
    return f"{listed}, ..." if len(names) > NUM_LISTED else listed


def first_line(error: Exception) -> str:
    """Return what an error says, or its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
