"""PyTorch's exported program: `torch.export.load(PATH).module()` runs it without this project."""

from pathlib import Path

import numpy as np
import torch

from tl_experiments.inference.export_graph import Graph, Loaded, trace


def write_pt2(graph: Graph, path: Path) -> None:
    """Trace a graph into a file.

    Raises:
        RunFailed: PyTorch cannot trace the network.
    """
    with path.open("wb") as file:
        torch.export.save(trace(graph), file)


def read_pt2(path: Path) -> Loaded:
    """Load the file as its users do, on the CPU."""
    with path.open("rb") as file:
        program = torch.export.load(file).module()

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return program(torch.from_numpy(images)).numpy()

    return answer
