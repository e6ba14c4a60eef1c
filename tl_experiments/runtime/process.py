"""What one run sets for the whole process: device, threads and determinism; all of it is put back afterwards."""

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.errors import SettingError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CPUINFO = Path("/proc/cpuinfo")


def choose_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device; auto is the GPU when there is one.

    Raises:
        SettingError: the device is not there.
    """
    available = torch.cuda.is_available()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise SettingError(f"device {name}: expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if available else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not available:
            raise SettingError(f"device {name}: PyTorch {torch.__version__} sees no GPU; expected auto or cpu")
        device = torch.device("cuda", device.index or 0)
        if (device.index or 0) >= torch.cuda.device_count():
            raise SettingError(f"device {name}: this machine has {torch.cuda.device_count()} GPUs, from cuda:0")
    return device


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def describe_device(device: torch.device) -> str:
    """Name a device for people: the GPU's model, or the CPU and its threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def processor_name() -> str:
    """Name the CPU's model, as far as this system tells."""
    with suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := re.match(r"(?:model name|CPU part)\s*:\s*(.*\S)", line):  # the second on ARM
                return found[1]
    return platform.processor() or platform.machine()


def processor_digest() -> str:
    """Digest what this system tells of the CPU, or return ""; in a cloud one name stands for many models."""
    with suppress(OSError):
        first = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        fixed = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU ", "Features")
        lines = [line for line in first.splitlines() if line.startswith(fixed)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return ""


def machine(device: str, *, num_processes: int) -> dict[str, str]:
    """Return where the run is.

    Args:
        device: as `describe_device` names it.
        num_processes: that train it together.
    """
    return {
        "host": platform.node(),
        "processor": processor_name(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "processes": str(num_processes),
    }


@contextmanager
def process_context(*, device: str, threads: int | None, deterministic: bool) -> Iterator[torch.device]:
    """Yield the device with threads and determinism set.

    Args:
        device: auto, cpu, cuda or cuda:N.
        threads: of the CPU; None keeps PyTorch's choice, one per core.
        deterministic: kernels that give the same bits each time, and an error where there are none.

    Raises:
        SettingError: the device is not there.
    """
    with ExitStack() as undo:
        undo.callback(torch.set_num_threads, torch.get_num_threads())
        if threads is not None:
            torch.set_num_threads(threads)
        if deterministic:
            _make_deterministic(undo)
        chosen = choose_device(device)
        if chosen.type == "cpu":
            keep_freed_memory()  # the one setting that cannot be put back
        yield chosen


def _make_deterministic(undo: ExitStack) -> None:
    undo.callback(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    undo.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    undo.callback(_restore, CUBLAS, os.environ.get(CUBLAS))
    os.environ.setdefault(CUBLAS, ":4096:8")  # read once, when the first product runs on the GPU
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
