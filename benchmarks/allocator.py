"""Measure what keeping freed memory is worth on a CPU, as ratios to malloc as it comes.

    python benchmarks/allocator.py

Both kinds of process take turns, so a busy machine slows both alike; the median round counts. `runtime=auto` keeps what
is freed (runtime/allocator.py).
"""

import argparse
import statistics
import subprocess
import sys

import torch
from precision import auto_compute, make_backbone, timed, train_step

from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.process import describe_device

BACKBONES = ("efficientnet_lite0", "resnet18")
BATCH_SIZE, IMAGE_SIZE, NUM_STEPS = 32, 224, 4


def measure(name: str) -> float:
    """Images/s of training, in the precision and layout that `runtime=auto` takes."""
    compute = auto_compute(name, IMAGE_SIZE, trains_backbone=True, device=torch.device("cpu"))
    backbone = make_backbone(name, IMAGE_SIZE).to(memory_format=compute.memory_format)  # type: ignore[call-overload]
    images = torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE).contiguous(memory_format=compute.memory_format)
    step = train_step(backbone, images, compute.train.name)
    timed(step, compute.device)
    return BATCH_SIZE / statistics.median(timed(step, compute.device) for _ in range(NUM_STEPS))


def in_process(name: str, *, keeps: bool) -> float:
    """Measure in a process of its own, since the setting cannot be taken back."""
    command = [sys.executable, __file__, "--measure", name, *(["--keep"] if keeps else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=BACKBONES, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        if arguments.keep and not keep_freed_memory():
            sys.exit("this system's malloc has no such setting")
        print(measure(arguments.measure))
        return

    print(f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}, training, {BATCH_SIZE} images a step")
    for name in BACKBONES:
        rounds = [(in_process(name, keeps=False), in_process(name, keeps=True)) for _ in range(arguments.rounds)]
        plain, kept = (statistics.median(speeds) for speeds in zip(*rounds, strict=True))
        print(f"{name:20} as it comes {plain:7.1f} images/s   kept {kept:7.1f} images/s   {kept / plain:.2f}x")


if __name__ == "__main__":
    main()
