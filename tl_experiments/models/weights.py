"""Weights from a file, into a network that they must fit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

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
ARCHIVE = b"PK\x03\x04"  # how PyTorch's files begin, but for old ones
OFFLINE = "backbone=efficientnet_lite0 needs no download"
NUM_LISTED = 3
LONGEST_SHOWN = 120  # characters of a name that a file may have from anywhere


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
        require_bounded(path)
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
    if special := [name for name, tensor in loaded.items() if not _is_plain(tensor)]:
        raise WeightsError(
            f"backbone.weights={source}: {_some(special)}: sparse, quantized or otherwise special; "
            "expected plain tensors of numbers"
        )
    return dict(loaded)


def require_bounded(path: Path) -> None:
    """Refuse an archive whose members would take more memory than the file has bytes; PyTorch compresses none.

    Raises:
        ValueError: it is such an archive.
    """
    with path.open("rb") as file:
        if file.read(len(ARCHIVE)) != ARCHIVE:
            return
    try:
        with ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except (BadZipFile, NotImplementedError) as error:
        raise ValueError(f"damaged archive: {error}") from error
    if declared > path.stat().st_size:
        raise ValueError(
            f"its {path.stat().st_size:,} bytes stand for {declared:,}: compressed, or made to fill memory"
        )


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is a dense array of numbers: the code behind other kinds was not written for what strangers send."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)
    )


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
    shown = (name if name.isprintable() else ascii(name) for name in names[:NUM_LISTED])
    listed = ", ".join(name[:LONGEST_SHOWN] for name in shown)
    return f"{listed}, ..." if len(names) > NUM_LISTED else listed


def first_line(error: Exception) -> str:
    """Return what an error says, or its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
