"""What a benchmark prints, kept so that it can be saved beside what it was measured on."""

import datetime
import os
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.precision import device_kind
from tl_experiments.runtime.process import describe_device, processor_name

RESULTS = Path(__file__).parent / "results"


class Report:
    """Prints lines and remembers them; begins with the place of the measurement."""

    def __init__(self, title: str, *, device: torch.device, packages: Sequence[str]) -> None:
        """Print the head.

        Args:
            title: what is measured.
            device: where.
            packages: whose versions matter.
        """
        self._device = device
        self._lines: list[str] = []
        self.say(title)
        cores = f"{_num_cores()} CPU cores, {torch.get_num_threads()} threads"
        self.say(f"{describe_device(device)}, {processor_name()}, {cores}")
        self.say(", ".join(f"{package} {_version(package)}" for package in packages))
        self.say(f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M}")

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self._lines.append(line)

    def save(self, name: str) -> None:
        """Write everything so far to results/<name>_<device kind>.md."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}_{_kind(self._device)}.md"
        publish_text(path, "\n".join([f"# {self._lines[0]}", "", "```text", *self._lines[1:], "```", ""]))
        print(f"saved {path}")


def verdict(ratio: float, bar: float) -> str:
    """A ratio beside the one that is aimed at."""
    return f"{ratio:.2f}x, bar >= {bar:g}x: {'met' if ratio >= bar else 'missed'}"


def at_most(value: float, bar: float, *, unit: str = "x") -> str:
    """A ratio, or another figure, beside the one that it should not exceed."""
    return f"{value:.2f}{unit}, bar <= {bar:g}{unit}: {'met' if value <= bar else 'missed'}"


def _kind(device: torch.device) -> str:
    """One file per GPU model, and per kind of CPU."""
    if device.type == "cuda":
        return re.sub(r"\W+", "_", torch.cuda.get_device_name(device)).strip("_").lower()
    return device_kind(device)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
