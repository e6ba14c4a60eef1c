"""Measure which precision and memory layout is fastest here, and write it into the table that `runtime=auto` reads.

    python benchmarks/precision.py                        all backbones; prints ratios, changes nothing
    python benchmarks/precision.py --write                the same, and updates tl_experiments/runtime/precision.json
    python benchmarks/precision.py --backbones resnet18   one backbone

A step has 32 images; inference takes as many of them at once as `runtime.precision.fast_batch_size` gives.
The four combinations take turns within a round, so a busy machine slows all alike; the median round counts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.torchvision_backbones import torchvision_backbone
from tl_experiments.runtime import precision
from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.process import choose_device, describe_device

TABLE = Path(precision.__file__).with_name("precision.json")
SIZES = {
    "efficientnet_lite0": (64, 224),
    "resnet18": (64, 224),
    "resnet50": (64, 224),
    "mobilenet_v3_large": (64, 224),
    "vgg16": (224,),
    "inception_v3": (299,),
    "vit_b_16": (224,),
}
COMBINATIONS = [(name, layout) for name in precision.PRECISIONS for layout in precision.MEMORY_FORMATS]
NUM_CLASSES = 10


def make_backbone(name: str, image_size: int) -> Backbone:
    build = efficientnet_lite0 if name == "efficientnet_lite0" else torchvision_backbone
    size = None if name == "vit_b_16" else image_size
    return build(name=name, weights=None, image_size=size, preferred_size=None, seed=0)


def auto_compute(name: str, image_size: int, *, trains_backbone: bool, device: torch.device) -> precision.Compute:
    """What `runtime=auto` takes."""
    return precision.choose(
        device=device,
        backbone=name,
        image_size=image_size,
        trains_backbone=trains_backbone,
        learns_from_features=False,
        train_precision=precision.AUTO,
        infer_precision=precision.AUTO,
        memory_format=precision.AUTO,
        infer_batch_size=None,
    )


def infer_step(backbone: Backbone, images: torch.Tensor, dtype: str) -> Callable[[], None]:
    model = backbone.eval()
    mode = precision.Precision(dtype, images.device.type)
    batches = images.split(precision.fast_batch_size(images.device, images.shape[-1]))

    def step() -> None:
        with torch.no_grad(), mode.autocast():
            for batch in batches:
                model(batch)

    return step


def train_step(backbone: Backbone, images: torch.Tensor, dtype: str) -> Callable[[], None]:
    model = backbone.train()
    head = nn.Linear(backbone.feature_dim, NUM_CLASSES, device=images.device)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=1e-3, momentum=0.9)
    labels = torch.arange(len(images), device=images.device) % NUM_CLASSES
    mode = precision.Precision(dtype, images.device.type)

    def step() -> None:
        with mode.autocast():
            features = model(images)
        F.cross_entropy(head(features.float()), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(
    name: str, image_size: int, *, purpose: str, device: torch.device, batch_size: int, rounds: int
) -> dict[str, float]:
    """Images/s of the four combinations."""
    make_step = train_step if purpose == "train" else infer_step
    steps = {}
    for dtype, layout in COMBINATIONS:
        memory_format = precision.MEMORY_FORMATS[layout]
        backbone = make_backbone(name, image_size).to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        images = torch.randn(batch_size, 3, image_size, image_size, device=device).to(memory_format=memory_format)
        steps[f"{dtype}/{layout}"] = make_step(backbone, images, dtype)
    for step in steps.values():
        timed(step, device)  # the first step also plans
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            seconds[key].append(timed(step, device))
    return {key: round(batch_size / statistics.median(values), 1) for key, values in seconds.items()}


def typical(rows: dict[str, list[precision.Row]]) -> list[precision.Row]:
    """The row for backbones that were not measured: geometric means over those that were, at each size."""
    sizes = sorted({row["image_size"] for group in rows.values() for row in group})
    result = []
    for size in sizes:
        same_size = [row for group in rows.values() for row in group if row["image_size"] == size]
        if len(same_size) > 1:
            means = {
                purpose: {
                    key: round(statistics.geometric_mean(row[purpose][key] for row in same_size), 1)
                    for key in same_size[0][purpose]
                }
                for purpose in ("train", "infer")
            }
            result.append({"image_size": size, **means})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"update {TABLE.name}")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # as a run does
    print(f"{describe_device(device)}, torch {torch.__version__}, {arguments.batch_size} images a step: images/s")
    print(f"{'':32}" + "".join(f"{dtype + ' ' + layout:>20}" for dtype, layout in COMBINATIONS) + "   best : worst")
    rows: dict[str, list[precision.Row]] = {}
    for name in arguments.backbones:
        for size in SIZES[name]:
            row: precision.Row = {"image_size": size}
            for purpose in ("train", "infer"):
                speeds = measure(
                    name,
                    size,
                    purpose=purpose,
                    device=device,
                    batch_size=arguments.batch_size,
                    rounds=arguments.rounds,
                )
                row[purpose] = speeds
                cells = "".join(f"{speed:>20.1f}" for speed in speeds.values())
                ratio = max(speeds.values()) / min(speeds.values())
                print(f"{name:20}{size:>4} {purpose:7}{cells}{ratio:>13.1f}x", flush=True)
            rows.setdefault(name, []).append(row)

    if arguments.write:
        table = json.loads(TABLE.read_text(encoding="utf-8"))
        measured = table["rows"].setdefault(precision.device_kind(device), {})
        measured.update(rows)
        fallback = typical({name: group for name, group in measured.items() if name in SIZES})
        if fallback:  # one backbone alone is not typical
            measured[precision.FALLBACK] = fallback
        publish_text(TABLE, json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
