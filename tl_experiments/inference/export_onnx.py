"""ONNX: one file that onnxruntime and others run. By libraries of the extra `[export]`, whose import takes seconds."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_experiments.inference.export_graph import INPUT, Graph, Loaded, trace
from tl_experiments.models.weights import first_line
from tl_experiments.runtime.errors import RunFailed, SettingError

if TYPE_CHECKING:
    import onnx

OPSET = 18  # what PyTorch's exporter writes by itself; for later ones it converts
MOST_BYTES = 2_000_000_000  # of tensors; one file of protobuf holds 2 GiB
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(graph: Graph, path: Path) -> None:
    """Trace a graph into one file.

    Raises:
        RunFailed: PyTorch cannot trace the network, or has no ONNX for something in it.
        SettingError: it is too large.
    """
    size = sum(tensor.nbytes for tensor in graph.network.state_dict().values())
    if size > MOST_BYTES:
        raise SettingError(f"{size / 1e9:.1f} GB of weights: one ONNX file holds 2 GB; --format pt2 holds them")
    with _quiet():
        path.write_bytes(_converted(graph).SerializeToString())


def read_onnx(path: Path) -> Loaded:
    """Load the file into onnxruntime, on the CPU."""
    import onnxruntime  # noqa: PLC0415 - of an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})[0]  # type: ignore[return-value]


def _converted(graph: Graph) -> "onnx.ModelProto":
    import torch.onnx  # noqa: PLC0415 - slow to import

    program = trace(graph)
    try:
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[graph.output],
            dynamic_shapes={INPUT: graph.free},
            verbose=False,
        )
    except Exception as error:  # of many kinds
        raise RunFailed(f"PyTorch has no ONNX for this network ({first_line(error)}); try --format pt2") from error
    assert converted is not None
    model = converted.model_proto
    _forget_origin(model)
    return model


def _forget_origin(model: "onnx.ModelProto") -> None:
    """Drop what the exporter tells of the Python code behind every value: it is most of a small file."""
    told: Iterable[Any] = (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output)
    for thing in (model, model.graph, *told, *model.graph.initializer):
        del thing.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks to those who develop it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
