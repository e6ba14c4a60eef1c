"""Where in a network its evidence for a class can be read and still has a place in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

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
        at_input: whether it is read before the layer, not behind it.
    """

    module: nn.Module
    layout: Layout
    side: int
    at_input: bool = False

    def planes(self, values: torch.Tensor) -> torch.Tensor:
        """Lay values of this layer, attributions as well, on the grid: (B, C, side, side)."""
        if self.layout is Layout.CHANNELS_FIRST:
            return values
        if self.layout is Layout.TOKENS:  # class tokens and registers come first, and have no place
            values = values[:, -(self.side**2) :].unflatten(1, (self.side, self.side))
        return values.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Call:
    """One call of a module: the shapes of its input and output, () for what is no tensor."""

    module: nn.Module
    given: tuple[int, ...]
    returned: tuple[int, ...]


def find_evidence_layer(backbone: Backbone, images: torch.Tensor) -> EvidenceLayer | None:
    """Find the last layer whose values lie on a grid over the image; None where there is no such layer.

    The last stage with a grid of 4 x 4 or more counts, else with 2 x 2 or more, or the layer behind the last stage that
    keeps its grid (EfficientNet's last convolution): class evidence is clearest there. A backbone that names no stages
    is searched through. Of tokens, what the last block gets is taken: of what it returns, the class token alone may be
    used.

    Args:
        backbone: in eval mode; not changed.
        images: (B, 3, S, S), normalised, which are passed through it once.
    """
    calls = _calls(backbone.body, images)
    num_prefix = getattr(backbone.body, "num_prefix_tokens", int(hasattr(backbone.body, "class_token")))
    if not backbone.stages:
        return _last_on_grid(calls, num_prefix)
    stages = [_read(call, num_prefix) for name in backbone.stages for call in _of(backbone, name, calls)]
    on_grid = [layer for layer in stages if layer is not None]
    fine = [layer for layer in on_grid if layer.side >= LEAST_SIDE]
    if not on_grid:
        return None
    chosen = (fine or on_grid)[-1]
    if chosen is stages[-1] and chosen.layout is Layout.CHANNELS_FIRST:
        return _behind(chosen, calls) or chosen
    return chosen


def _calls(body: nn.Module, images: torch.Tensor) -> list[_Call]:
    """Return the calls of the modules that are called once, in the order in which they end."""
    calls: list[_Call] = []

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        calls.append(_Call(module, _shape(inputs[0] if inputs else None), _shape(output)))

    hooks = [module.register_forward_hook(watch) for module in body.modules() if module is not body]
    try:
        with torch.no_grad():
            body(images)
    finally:
        for hook in hooks:
            hook.remove()
    modules = [call.module for call in calls]
    return [call for call in calls if modules.count(call.module) == 1]


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _of(backbone: Backbone, name: str, calls: Sequence[_Call]) -> list[_Call]:
    module = backbone.body.get_submodule(name)
    return [call for call in calls if call.module is module]


def _read(call: _Call, num_prefix: int) -> EvidenceLayer | None:
    """Return how the values that a call returned lie, or None: on no grid of 2 x 2 or more."""
    match call.returned:
        case (_, _, height, width) if height == width > 1:
            return EvidenceLayer(call.module, Layout.CHANNELS_FIRST, width)
        case (_, height, width, _) if height == width > 1:
            return EvidenceLayer(call.module, Layout.CHANNELS_LAST, width)
        case (_, _, _) if (side := _side(call.given, num_prefix)) > 1:
            return EvidenceLayer(call.module, Layout.TOKENS, side, at_input=True)
    return None


def _side(tokens: tuple[int, ...], num_prefix: int) -> int:
    """Return the side of a square of tokens, with or without those that come before; 0 where there is none."""
    if len(tokens) != 3:
        return 0
    sides = {count: math.isqrt(count) for count in (tokens[1] - num_prefix, tokens[1]) if count > 0}
    return next((side for count, side in sides.items() if side**2 == count), 0)


def _last_on_grid(calls: Sequence[_Call], num_prefix: int) -> EvidenceLayer | None:
    """Return the last layer on a grid if it is one of a convolutional network; tokens of any block might be cut off."""
    layers = [layer for call in calls if (layer := _read(call, num_prefix)) is not None]
    return layers[-1] if layers and layers[-1].layout is Layout.CHANNELS_FIRST else None


def _behind(stage: EvidenceLayer, calls: Sequence[_Call]) -> EvidenceLayer | None:
    """Return the last layer that is called after a stage and has a grid of its size."""
    modules = [call.module for call in calls]
    later = [_read(call, 0) for call in calls[modules.index(stage.module) + 1 :]]
    alike = [layer for layer in later if layer and (layer.layout, layer.side) == (stage.layout, stage.side)]
    return alike[-1] if alike else None
