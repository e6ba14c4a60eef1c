"""The identity of weights."""

import hashlib
from collections.abc import Mapping

import torch


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over the sorted (name, dtype, shape, bytes), in hexadecimal; device, strides do not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        whole = tensor.detach().cpu().contiguous().flatten()
        digest.update(whole.view(torch.uint8).numpy().data)
    return digest.hexdigest()
