"""Where in a network its evidence for a class can be read and still has a place in the image."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import dropwhile

import torch
from torch import nn

from tl_experiments.models.backbone import Backbone

LEAST_SIDE = 4  # cells; where an image is small, a grid of 2 x 2 would show no more than a quadrant


class Layout(Enum):
    """How a layer's values lie: B images, C channels or D numbers a token, H x W cells."""

    CHANNELS_FIRST = "(B, C, H, W)"
    CHANNELS_LAST = "(B, H, W, C)"
    TOKENS = "(B, N, D)"


@dataclass(frozen=True)
class EvidenceLayer:
    """A layer whose values lie on a grid over the image.

    Attributes:
        module: of the backbone's body.
        layout: of its values.
        side: cells of the grid along each side.
    """

    module: nn.Module
    layout: Layout
    side: int

    def planes(self, values: torch.Tensor) -> torch.Tensor:
        """Lay values of this layer, attributions as well, on the grid: (B, C, side, side)."""
        if self.layout is Layout.CHANNELS_FIRST:
            return values
        if self.layout is Layout.TOKENS:  # class tokens and registers come first, and have no place
            values = values[:, -(self.side**2) :].unflatten(1, (self.side, self.side))
        return values.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Call:
    """One call of a module, and the shape of what it returned: () for what is no tensor."""

    module: nn.Module
    shape: tuple[int, ...]


def find_evidence_layer(backbone: Backbone, images: torch.Tensor) -> EvidenceLayer | None:
    """Find the last layer whose values lie on a grid over the image; None where there is no such layer.

    The last stage with a grid of 4 x 4 or more counts, else with 2 x 2 or more, or the layer behind the last stage that
    keeps its grid (EfficientNet's last convolution): class evidence is clearest there. Of tokens, those before the last
    stage are taken: of what this returns, the class token alone may be used. A backbone that names no stages is
    searched through for its last convolutions.

    Args:
        backbone: in eval mode; not changed.
        images: (B, 3, S, S), normalised, which are passed through it once.
    """
    calls = _calls(backbone.body, images)
    num_prefix = getattr(backbone.body, "num_prefix_tokens", int(hasattr(backbone.body, "class_token")))
    by_module = {call.module: _on_grid(call, num_prefix) for call in calls}
    if not backbone.stages:
        return _last_of_convolutions(by_module.values())
    stages = [by_module.get(backbone.body.get_submodule(name)) for name in backbone.stages]
    if (last := stages[-1]) is not None and last.layout is Layout.TOKENS:
        stages[-1] = None
    chosen = next((stage for stage in reversed(stages) if stage and stage.side >= LEAST_SIDE), None)
    chosen = chosen or next((stage for stage in reversed(stages) if stage), None)
    if chosen is None or chosen is not last:
        return chosen
    behind = dropwhile(lambda layer: layer is not chosen, by_module.values())
    return [layer for layer in behind if layer and (layer.layout, layer.side) == (chosen.layout, chosen.side)][-1]


def _calls(body: nn.Module, images: torch.Tensor) -> list[_Call]:
    """Return the calls of the modules that are called once, in the order in which they end."""
    calls: list[_Call] = []

    def watch(module: nn.Module, _inputs: object, output: object) -> None:
        calls.append(_Call(module, tuple(output.shape) if isinstance(output, torch.Tensor) else ()))

    hooks = [module.register_forward_hook(watch) for module in body.modules() if module is not body]
    try:
        with torch.no_grad():
            body(images)
    finally:
        for hook in hooks:
            hook.remove()
    times = Counter(call.module for call in calls)
    return [call for call in calls if times[call.module] == 1]


def _on_grid(call: _Call, num_prefix: int) -> EvidenceLayer | None:
    """Return how the values that a call returned lie, or None: on no grid of 2 x 2 or more."""
    match call.shape:
        case (_, _, height, width) if height == width > 1:
            return EvidenceLayer(call.module, Layout.CHANNELS_FIRST, width)
        case (_, height, width, _) if height == width > 1:
            return EvidenceLayer(call.module, Layout.CHANNELS_LAST, width)
        case (_, count, _) if (side := _side(count, num_prefix)) > 1:
            return EvidenceLayer(call.module, Layout.TOKENS, side)
    return None


def _side(count: int, num_prefix: int) -> int:
    """Return the side of the square that tokens fill, with or without those before it; 0 where there is none."""
    squares = [number for number in (count - num_prefix, count) if number > 0 and math.isqrt(number) ** 2 == number]
    return math.isqrt(squares[0]) if squares else 0


def _last_of_convolutions(layers: Iterable[EvidenceLayer | None]) -> EvidenceLayer | None:
    """Return the last layer on a grid; None where it has tokens, of which some may not be used any more."""
    last = [layer for layer in layers if layer][-1:]
    return last[0] if last and last[0].layout is Layout.CHANNELS_FIRST else None
