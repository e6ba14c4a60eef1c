"""Measure how many images a backbone should see at once when it is not trained, as ratios to 64 images.

    python benchmarks/infer_batch_size.py

The sizes take turns within a round, so a busy machine slows all alike; the median round counts. `runtime=auto` takes
the size that `runtime.precision.fast_batch_size` gives, marked with a star.
"""

import argparse
import statistics
import time

import torch
from precision import auto_compute

from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.runtime.precision import fast_batch_size
from tl_experiments.runtime.process import choose_device, describe_device

IMAGE_SIZES = (64, 224)
BATCH_SIZES = (4, 8, 16, 32, 64)
NUM_IMAGES = 64  # of one round, in batches


def measure(device: torch.device, image_size: int, *, rounds: int) -> dict[int, float]:
    """Images/s by batch size, in the precision and layout that `runtime=auto` takes."""
    backbone = efficientnet_lite0(
        name="efficientnet_lite0", weights=None, image_size=image_size, preferred_size=None, seed=0
    )
    compute = auto_compute(backbone.name, image_size, trains_backbone=False, device=device)
    backbone.eval().to(device=device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    sizes = sorted({*BATCH_SIZES, fast_batch_size(device, image_size)})
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds + 1):
        for size in sizes:
            images = torch.randn(size, 3, image_size, image_size, device=device)
            images = images.contiguous(memory_format=compute.memory_format)
            start = time.perf_counter()
            with torch.no_grad(), compute.infer.autocast():
                for _ in range(max(1, NUM_IMAGES // size)):
                    backbone(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[size].append((time.perf_counter() - start) / max(1, NUM_IMAGES // size) / size)
    return {size: 1 / statistics.median(values[1:]) for size, values in seconds.items()}  # the first round also plans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    print(f"{describe_device(device)}, torch {torch.__version__}, efficientnet_lite0")
    for image_size in IMAGE_SIZES:
        speeds = measure(device, image_size, rounds=arguments.rounds)
        chosen = fast_batch_size(device, image_size)
        for size, speed in speeds.items():
            star = " *" if size == chosen else ""
            print(f"{image_size:>4} px  batch {size:>4}  {speed:>9.1f} images/s  {speed / speeds[64]:.2f}x{star}")


if __name__ == "__main__":
    main()
