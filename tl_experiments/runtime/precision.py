"""Precision and memory layout: what is fastest here, from a table of measurements, never timed while a run goes on.

A choice that was timed at run time would change from run to run, and with it the bits of the result. The table is
`precision.json`, written by `benchmarks/precision.py`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from tl_experiments.runtime.process import processor_name
from tl_experiments.runtime.ranks import ALONE, Ranks

AUTO = "auto"
PRECISIONS = ("fp32", "bf16")
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FALLBACK = "*"  # the row of a device for backbones that were not measured

Row = dict[str, Any]  # image_size, and per purpose the speed of every `precision/memory_format`


@dataclass(frozen=True)
class Precision:
    """How a module computes: name fp32 or bf16, on one kind of device.

    Weights, optimizer state and losses stay float32; in bf16 the backbone's layers compute under autocast.
    """

    name: str
    device_type: str

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.name == "bf16"):
            yield


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes.

    Attributes:
        device: of everything.
        train: precision of what is trained.
        infer: precision of evaluation, and of a backbone that is not trained.
        layout: contiguous or channels_last, of images and convolutions.
        infer_batch_size: images at once where nothing is trained.
        ranks: this process and those that train the same run.
        shards: whether each of them holds a share of the weights only.
    """

    device: torch.device
    train: Precision
    infer: Precision
    layout: str
    infer_batch_size: int
    ranks: Ranks = ALONE
    shards: bool = False

    def __str__(self) -> str:
        return f"train {self.train.name}, infer {self.infer.name}, {self.layout}"

    @property
    def memory_format(self) -> torch.memory_format:
        return MEMORY_FORMATS[self.layout]


def device_kind(device: torch.device) -> str:
    """Return the table's key of a device: cuda, cuda_without_bf16, cpu_amx, cpu_avx512_bf16_amd (or _intel) or cpu.

    Products of bf16 vectors are an instruction of both makers, but only AMD's is faster than two of float32.
    """
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "cpu_amx"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        maker = next((maker for maker in ("amd", "intel") if maker in processor_name().lower()), "other")
        return f"cpu_avx512_bf16_{maker}"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "cuda_without_bf16"
    return device.type


@cache
def table() -> dict[str, dict[str, list[Row]]]:
    """Return device kind → backbone → rows."""
    return json.loads(files("tl_experiments.runtime").joinpath("precision.json").read_text(encoding="utf-8"))["rows"]


def choose(
    *,
    device: torch.device,
    backbone: str,
    image_size: int,
    trains_backbone: bool,
    learns_from_features: bool,
    train_precision: str,
    infer_precision: str,
    memory_format: str,
    infer_batch_size: int | None,
) -> Compute:
    """Replace every `auto` by what the table found fastest.

    Args:
        device: where the run computes.
        backbone: its name; one that was not measured takes the rows of `*`.
        image_size: in pixels; the nearest measured size counts.
        trains_backbone: whether the layout is chosen for training or for inference; without, training is fp32.
        learns_from_features: whether a head learns from the frozen backbone's features. Then, and where the backbone is
            not trained at all, auto means fp32 for inference: bf16 loses accuracy that can be measured
            (benchmarks/accuracy.py).
        train_precision: auto, fp32 or bf16.
        infer_precision: the same.
        memory_format: auto, contiguous or channels_last.
        infer_batch_size: None is what `fast_batch_size` gives.
    """
    row = _nearest_row(device, backbone, image_size)
    if infer_precision == AUTO and (learns_from_features or not trains_backbone):
        infer_precision = "fp32"
    purpose, wanted = ("train", train_precision) if trains_backbone else ("infer", infer_precision)
    layouts = tuple(MEMORY_FORMATS) if memory_format == AUTO else (memory_format,)
    _, layout = _fastest(row[purpose], _options(wanted), layouts)
    # Heads compute in float32 whatever the backbone does, so that nothing else is trained where it is frozen.
    train = _fastest(row["train"], _options(train_precision), (layout,))[0] if trains_backbone else "fp32"
    infer, _ = _fastest(row["infer"], _options(infer_precision), (layout,))
    return Compute(
        device=device,
        train=Precision(train, device.type),
        infer=Precision(infer, device.type),
        layout=layout,
        infer_batch_size=infer_batch_size or fast_batch_size(device, image_size),
    )


def fastest_inference(*, device: torch.device, backbone: str, image_size: int) -> str:
    """Return the precision that the table found fastest where nothing is trained, whatever it costs in accuracy."""
    return _fastest(_nearest_row(device, backbone, image_size)["infer"], PRECISIONS, tuple(MEMORY_FORMATS))[0]


def fast_batch_size(device: torch.device, image_size: int) -> int:
    """Return how many images a backbone should see at once when it is not trained: enough pixels, and no more.

    On a CPU the activations of a larger batch leave the caches, and the allocator returns them to the system after
    every layer (benchmarks/infer_batch_size.py). GPUs want more to do; their figure was not measured.
    """
    pixels, most = (8 * 224**2, 32) if device.type == "cpu" else (256 * 224**2, 1024)
    return min(most, max(1, pixels // image_size**2))


def _options(precision: str) -> tuple[str, ...]:
    return PRECISIONS if precision == AUTO else (precision,)


def _nearest_row(device: torch.device, backbone: str, image_size: int) -> Row:
    return min(_rows(device, backbone), key=lambda row: abs(row["image_size"] - image_size))


def _rows(device: torch.device, backbone: str) -> list[Row]:
    """What was measured of the backbone on this kind of device, else of typical ones, else the device's rule."""
    kinds = [table().get(kind, {}) for kind in (device_kind(device), device.type)]
    return next(rows[name] for rows in kinds for name in (backbone, FALLBACK) if rows.get(name))


def _fastest(speeds: dict[str, float], precisions: Sequence[str], layouts: Sequence[str]) -> tuple[str, str]:
    pairs = [(precision, layout) for precision in precisions for layout in layouts]
    return max(pairs, key=lambda pair: speeds["/".join(pair)])
