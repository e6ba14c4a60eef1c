"""The identity of weights."""

import hashlib
from collections.abc import Mapping

import torch

from tl_experiments.models.sharded import whole


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over the sorted (name, dtype, shape, bytes), in hexadecimal; device, strides do not count.

    Of sharded ones all processes ask for it.
    """
    digest = hashlib.sha256()
    for name, held in sorted(tensors.items()):
        tensor = whole(held)
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
