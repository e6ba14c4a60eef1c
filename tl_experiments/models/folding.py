"""A frozen network with its BatchNorm folded into the convolutions before it: the same function in fewer passes."""

import copy
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 2e-5  # of the largest feature; rounding differs by some 1e-6
NORMS = (nn.BatchNorm2d, BatchNormAct2d)


@torch.no_grad()
def folded(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a copy in eval mode whose convolutions contain the BatchNorm that follows them.

    Which layer follows which is seen while the example passes through. A network that then answers differently, or that
    cannot be followed, is returned as it is.

    Args:
        network: in eval mode; not changed.
        example: input of one batch, on the network's device.
    """
    copied = copy.deepcopy(network)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # whose rounding would hide a wrong answer
        return _folded(network, copied, example)


def _folded(network: nn.Module, copied: nn.Module, example: torch.Tensor) -> nn.Module:
    expected = copied(example)
    pairs = _pairs(copied, example)
    for conv, norm in pairs.items():
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    _remove(copied, set(pairs.values()))
    difference = (copied(example) - expected).abs().max()
    return copied if difference <= TOLERANCE * expected.abs().max() else network


def _pairs(network: nn.Module, example: torch.Tensor) -> dict[Any, Any]:
    """Return convolution → BatchNorm, where the output of one is what the other gets, and both are used once."""
    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}  # the tensors are kept, so that no id is used again
    pairs: dict[nn.Module, nn.Module] = {}
    calls: dict[nn.Module, int] = {}

    def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = (module, output)
        elif getattr(module, "track_running_stats", False) and id(inputs[0]) in outputs:
            pairs[outputs[id(inputs[0])][0]] = module

    watched = [module for module in network.modules() if isinstance(module, nn.Conv2d) or type(module) in NORMS]
    hooks = [module.register_forward_hook(watch) for module in watched]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return {conv: norm for conv, norm in pairs.items() if calls[conv] == calls[norm] == 1}


def _remove(network: nn.Module, norms: set[Any]) -> None:
    """Leave of a BatchNorm what it does besides: nothing, or timm's dropout and activation."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in norms:
                more = [getattr(child, part) for part in ("drop", "act")] if isinstance(child, BatchNormAct2d) else []
                setattr(parent, name, nn.Sequential(*more))
