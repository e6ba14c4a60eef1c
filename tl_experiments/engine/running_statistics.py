"""Running statistics of BatchNorm, which a forward pass moves before anybody knows whether its step counts."""

import torch
from torch import nn

from tl_experiments.strategies.base import batchnorm_modules


class RunningStatistics:
    """The statistics that move when a module trains, as they were before a step."""

    def __init__(self, module: nn.Module) -> None:
        """Watch the layers of a module that are in train mode."""
        layers = [layer for layer in batchnorm_modules(module) if layer.training]
        self._buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them as they are."""
        for before, buffer in zip(self._before, self._buffers, strict=True):
            before.copy_(buffer)

    @torch.no_grad()
    def put_back(self) -> None:
        """Have them as they were."""
        for before, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def put_back_unless(self, counts: torch.Tensor) -> None:
        """Have them as they were where `counts`, a bool () on the device, says so; the host does not wait to know."""
        if counts.device.type == "cpu":
            if not counts:
                self.put_back()
            return
        for before, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(torch.where(counts, buffer, before))
