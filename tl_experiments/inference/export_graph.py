"""The two graphs that a model is exported as, and how they are traced."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from tl_experiments.data.transforms import Canvas
from tl_experiments.inference.graph_drawing import GraphDrawing
from tl_experiments.inference.image_classifier import ImageClassifier
from tl_experiments.models.weights import first_line
from tl_experiments.runtime.errors import RunFailed

INPUT = "images"  # as the networks call their argument
TRACED_BATCH = 2  # a batch of one would become the only one that the graph takes

Loaded: TypeAlias = Callable[[np.ndarray], np.ndarray]  # what was exported, read again: images → what it gives


@dataclass(frozen=True)
class Graph:
    """What is exported, before it is traced.

    Attributes:
        network: in eval mode; takes `images`.
        example: of its input.
        free: dimension of the input that may change → its name.
        output: what it gives: logits or probabilities.
    """

    network: nn.Module
    example: torch.Tensor
    free: dict[int, str]
    output: str

    @property
    def shape(self) -> list[int | str]:
        """Of its input, with the names of what may change."""
        return [self.free.get(dim, size) for dim, size in enumerate(self.example.shape)]


def logits_graph(network: ImageClassifier) -> Graph:
    """Return the bare model: normalised float32 (B, 3, S, S) → logits (B, K), before temperature and mirror images."""
    example = torch.zeros(TRACED_BATCH, 3, network.crop, network.crop)
    return Graph(network.model, example, {0: "batch"}, "logits")


def probabilities_graph(network: ImageClassifier, canvas: Canvas) -> Graph:
    """Return everything after decoding: RGB uint8 (B, H, W, 3) of any size → calibrated probabilities (B, K)."""
    height, width = canvas.size + 1, canvas.size + 2  # different, so that they are not taken for one
    example = torch.zeros(TRACED_BATCH, height, width, 3, dtype=torch.uint8)
    free = {0: "batch", 1: "height", 2: "width"}
    return Graph(DrawingClassifier(network, canvas).eval(), example, free, "probabilities")


class DrawingClassifier(nn.Module):
    """A classifier that draws its own canvases."""

    def __init__(self, network: ImageClassifier, canvas: Canvas) -> None:
        super().__init__()
        self.drawing = GraphDrawing(canvas)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map RGB images uint8 (B, H, W, 3) to probabilities float32 (B, K)."""
        return self.network(self.drawing(images))


def trace(graph: Graph) -> ExportedProgram:
    """Return the program of a graph, without gradients and without the paths of the code that it was made from.

    Raises:
        RunFailed: PyTorch cannot trace the network.
    """
    graph.network.requires_grad_(False)
    graph.network(graph.example)  # what is computed once and kept must not be computed while tracing: it would be fake
    shapes = {INPUT: {dim: Dim(name) for dim, name in graph.free.items()}}
    try:
        program = torch.export.export(graph.network, (graph.example,), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds, raised by whatever the network does that a graph cannot
        raise RunFailed(
            f"torch.export cannot trace this network ({first_line(error)}); --format safetensors needs no graph"
        ) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program
