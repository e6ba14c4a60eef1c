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
    """

    device: torch.device
    train: Precision
    infer: Precision
    layout: str

    def __str__(self) -> str:
        return f"train {self.train.name}, infer {self.infer.name}, {self.layout}"

    @property
    def memory_format(self) -> torch.memory_format:
        return MEMORY_FORMATS[self.layout]


def device_kind(device: torch.device) -> str:
    """Return the table's key of a device: cuda, cpu_avx512_bf16 or cpu."""
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "cpu_avx512_bf16"
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
    train_precision: str,
    infer_precision: str,
    memory_format: str,
) -> Compute:
    """Replace every `auto` by what the table found fastest.

    Args:
        device: where the run computes.
        backbone: its name; one that was not measured takes the rows of `*`.
        image_size: in pixels; the nearest measured size counts.
        trains_backbone: whether the layout is chosen for training or for inference.
        train_precision: auto, fp32 or bf16.
        infer_precision: the same.
        memory_format: auto, contiguous or channels_last.
    """
    row = _nearest_row(device, backbone, image_size)
    purpose, wanted = ("train", train_precision) if trains_backbone else ("infer", infer_precision)
    layouts = tuple(MEMORY_FORMATS) if memory_format == AUTO else (memory_format,)
    _, layout = _fastest(row[purpose], _options(wanted), layouts)
    train, _ = _fastest(row["train"], _options(train_precision), (layout,))
    infer, _ = _fastest(row["infer"], _options(infer_precision), (layout,))
    return Compute(device, Precision(train, device.type), Precision(infer, device.type), layout)


def _options(precision: str) -> tuple[str, ...]:
    return PRECISIONS if precision == AUTO else (precision,)


def _nearest_row(device: torch.device, backbone: str, image_size: int) -> Row:
    devices = table()
    rows = devices.get(device_kind(device)) or devices.get(device.type) or devices["cpu"]
    return min(rows.get(backbone, rows[FALLBACK]), key=lambda row: abs(row["image_size"] - image_size))


def _fastest(speeds: dict[str, float], precisions: Sequence[str], layouts: Sequence[str]) -> tuple[str, str]:
    pairs = [(precision, layout) for precision in precisions for layout in layouts]
    return max(pairs, key=lambda pair: speeds["/".join(pair)])
