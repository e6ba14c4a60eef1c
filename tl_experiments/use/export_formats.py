"""What a model can be exported as."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from tl_experiments.build import build_trained_model
from tl_experiments.inference.description import Description
from tl_experiments.inference.export_folder import copy_model
from tl_experiments.inference.export_graph import Graph, Loaded, logits_graph, probabilities_graph
from tl_experiments.inference.export_onnx import OPSET, PACKAGES, read_onnx, write_onnx
from tl_experiments.inference.export_pt2 import read_pt2, write_pt2
from tl_experiments.inference.export_timm import read_timm, write_timm
from tl_experiments.inference.image_classifier import ImageClassifier
from tl_experiments.runtime.errors import SettingError


@dataclass(frozen=True)
class Trained:
    """A model that is to be exported.

    Attributes:
        folder: where it is.
        description: of it.
        network: float32, on the CPU.
        preprocess: whether the graph is to hold everything after decoding.
        allow_targets: prefixes of the user's own code that it is built with.
    """

    folder: Path
    description: Description
    network: ImageClassifier
    preprocess: bool
    allow_targets: tuple[str, ...]

    @property
    def graph(self) -> Graph:
        if self.preprocess:
            return probabilities_graph(self.network, self.description.canvas)
        return logits_graph(self.network)


@dataclass(frozen=True)
class Format:
    """One of them.

    Attributes:
        suffix: of the file that is written; None where it is a folder.
        write: a model, to a path.
        read: what was written, as its users do.
        packages: of the extra `[export]` that it needs.
    """

    suffix: str | None
    write: Callable[[Trained, Path], None]
    read: Callable[[Trained, Path], Loaded]
    packages: tuple[str, ...] = ()

    def require(self) -> None:
        """Raises SettingError where a package is missing."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise SettingError(
                f'--format onnx: {", ".join(missing)} not installed; install by: pip install "tl_experiments[export]"'
            )

    def versions(self) -> Mapping[str, str]:
        """Return the versions of what writes and checks it, besides those of every run."""
        opset = {"opset": str(OPSET)} if self.packages else {}
        return {package: version(package) for package in self.packages} | opset


def _read_folder(trained: Trained, path: Path) -> Loaded:
    model = build_trained_model(path, description=Description.load(path), allow_targets=trained.allow_targets)
    return lambda images: model(torch.from_numpy(images)).detach().numpy()


FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        ".onnx", lambda trained, path: write_onnx(trained.graph, path), lambda _, path: read_onnx(path), PACKAGES
    ),
    "pt2": Format(".pt2", lambda trained, path: write_pt2(trained.graph, path), lambda _, path: read_pt2(path)),
    "safetensors": Format(
        None, lambda trained, path: copy_model(trained.folder, path, description=trained.description), _read_folder
    ),
    "timm": Format(
        None,
        lambda trained, path: write_timm(trained.network.model, path, description=trained.description),
        lambda _, path: read_timm(path),
    ),
}
