"""A backbone cut in two between its stages: what comes before stays frozen, what comes after is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.weights import first_line
from tl_experiments.runtime.errors import SettingError

TOLERANCE = 1e-3  # of the largest feature; kernels that a GPU chooses anew round differently


@dataclass(frozen=True)
class Halves:
    """Two networks that share their layers, and the names of these, with the backbone's body.

    Attributes:
        prefix: images (B, 3, S, S) → activations (B, ...).
        suffix: activations → features (B, D).
    """

    prefix: nn.Module
    suffix: nn.Module


def cut(backbone: Backbone, *, num_trained: int) -> Halves:
    """Cut a backbone before its last stages.

    Args:
        backbone: on any device, left in eval mode.
        num_trained: stages of the suffix, at least 1.

    Raises:
        SettingError: no stage would be left to freeze, or the network cannot be cut there.
    """
    require_stages(backbone, num_trained=num_trained)
    stages = backbone.stages
    last = stages[-num_trained - 1]
    try:
        halves = _cut_after(backbone.eval().body, last, stages)
        same = _answers_alike(backbone, halves)
    except (TraceError, RuntimeError, TypeError, ValueError, NameError, AssertionError) as error:  # fx raises any
        raise SettingError(f"strategy: {backbone.name} cannot be cut after {last}: {first_line(error)}") from error
    if not same:
        raise SettingError(f"strategy: {backbone.name} cannot be cut after {last}: its halves answer otherwise")
    return halves


def require_stages(backbone: Backbone, *, num_trained: int) -> None:
    """Raise SettingError where no stage would be left to freeze."""
    num_stages = len(backbone.stages)
    if num_trained >= num_stages:
        expected = f"expected 1 to {num_stages - 1}" if num_stages > 1 else "so it cannot be cut"
        raise SettingError(
            f"strategy.num_stages={num_trained}: {backbone.name} has {num_stages} stages; {expected}, "
            "or strategy=finetune to train all of them"
        )


def stage_numbers(backbone: Backbone) -> dict[str, int]:
    """Return the stage, from 0, of each of the backbone's parameters by name; what follows the last is one more.

    Layers stand in the order in which they were registered, which in torchvision's and timm's networks is that in which
    they are called.
    """
    places = {name: place for place, (name, _) in enumerate(backbone.body.named_modules())}
    ends = [max(places[name] for name in places if f"{name}.".startswith(f"{stage}.")) for stage in backbone.stages]
    return {
        f"body.{name}": sum(end < places[name.rpartition(".")[0]] for end in ends)
        for name, _ in backbone.body.named_parameters()
    }


class _Outline(fx.Tracer):
    """Follows a network no deeper than to the ends of its stages; what lies deeper is left whole, dropout included."""

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        self._stages = stages

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        return not any(stage.startswith(f"{module_qualified_name}.") for stage in self._stages)


def _cut_after(body: nn.Module, last: str, stages: Sequence[str]) -> Halves:
    """Raises ValueError: the stage is not called once, or something else crosses the cut."""
    prefix, suffix = (_Outline(stages).trace(body) for _ in range(2))
    output = next(node for node in prefix.nodes if node.op == "output")
    output.args = (_call_of(prefix, last),)
    _remove_unused(prefix)

    boundary = _call_of(suffix, last)
    with suffix.inserting_before(boundary):
        boundary.replace_all_uses_with(suffix.placeholder("activations"))
    _remove_unused(suffix)
    images = next(node for node in suffix.nodes if node.op == "placeholder")
    if any("training" in node.kwargs for node in suffix.nodes):
        raise ValueError("its dropout is no layer, and would stay as it was when it was traced")
    if images.users:
        raise ValueError("the later stages look at more than its output")
    suffix.erase_node(images)

    halves = Halves(fx.GraphModule(body, prefix), fx.GraphModule(body, suffix))
    names = [{name for name, _ in half.named_parameters()} for half in (halves.prefix, halves.suffix)]
    if both := names[0] & names[1]:
        raise ValueError(f"{', '.join(sorted(both))} would be on both sides")
    return halves


def _remove_unused(graph: fx.Graph) -> None:
    """Remove what leads nowhere; assertions about the images do, which fx's own elimination keeps."""
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)


def _call_of(graph: fx.Graph, name: str) -> fx.Node:
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if len(calls) != 1:
        raise ValueError(f"expected one call of {name}, found {len(calls)}")
    return calls[0]


@torch.no_grad()
def _answers_alike(backbone: Backbone, halves: Halves) -> bool:
    """Whether the two, one after the other, do what the backbone does."""
    size = backbone.input_spec.size
    weight = next(backbone.parameters())
    example = torch.linspace(-2, 2, 2 * 3 * size * size, device=weight.device).reshape(2, 3, size, size)
    expected = backbone(example)
    return bool((halves.suffix(halves.prefix(example)) - expected).abs().max() <= TOLERANCE * expected.abs().max())
