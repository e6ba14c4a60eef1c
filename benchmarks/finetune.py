"""Measure fine-tuning: images/s of our engine against the plain loop, timm's loop and Lightning's Trainer.

    python benchmarks/finetune.py --data ROOT                        ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg
    python benchmarks/finetune.py --data ROOT --backbones resnet18   one backbone
    python benchmarks/finetune.py --data ROOT --save                 the same, and writes it to benchmarks/results/

All train every layer from random weights by SGD with momentum on the same images, 224 px, random crop and flip, and
all include what fetches the images. The contestants take turns within a round, so a busy machine slows all alike; the
median round counts, after a warmup in every round that is not timed.

plain       torchvision's transforms by Pillow, ImageFolder, DataLoader, float32
timm        what train.py does: create_dataset, create_loader with prefetcher and 4 workers, create_optimizer_v2
            (color_jitter, which the others have not, is off); then `--amp --amp-dtype bfloat16 --channels-last`
Lightning   Trainer with the plain loop's DataLoader; needs `pip install lightning`, and is left out without it
ours        strategy=finetune augmentation=light runtime=auto through the engine, images decoded once before; in a
            process of its own, set as a run's is, since on a CPU its way with freed memory would speed up all others

The bar of defaults on a CPU is against the fastest of the others as their users run them: plain with 0 and with
`--workers` workers, timm, and Lightning. Where one of them is missing its bar gets no verdict.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import timm_loop
import torch
import torchvision
from engine_process import EngineProcess
from plain_loop import (
    IMAGE_SIZE,
    LR,
    MOMENTUM,
    folder_of_splits,
    link_subset,
    make_loader,
    make_step,
    throughput,
    train_transform,
)
from report import Report, verdict
from torch import nn

from tl_experiments.models.efficientnet_lite0 import ARCHITECTURE
from tl_experiments.runtime.process import choose_device

TRAIN_GFLOP = {"resnet18": 10.7, "efficientnet_lite0": 2.44}  # of one image of 224 px
PEAK_GFLOPS = 790e3  # bf16, measured on an H200
OURS = "ours"
TIMM = f"timm, {timm_loop.WORKERS} workers"
TIMM_AMP = f"{TIMM}, amp bf16 channels_last"
BAR_DEFAULT, BAR_AMP = 1.3, 1.0  # on 2 CPU cores
BAR_PLAIN, BAR_WORKERS = 10.0, 2.0  # on an H200 with 16 CPU cores
PREFETCHED = 2  # batches that each worker of a DataLoader is ahead

Contestant = Callable[[int, int], float]  # (steps of the warmup, steps) -> images/s


def plain_name(workers: int) -> str:
    return f"plain, {workers} workers"


def lightning_name(workers: int) -> str:
    return f"Lightning, {workers} workers"


def make_network(backbone: str, num_classes: int) -> nn.Module:
    """The network with random weights."""
    if backbone == "resnet18":
        return torchvision.models.resnet18(num_classes=num_classes)
    return timm.create_model(ARCHITECTURE, num_classes=num_classes)


def plain_contestant(network: nn.Module, make_batches: Callable[[], Any], *, device: torch.device) -> Contestant:
    """The tutorial's loop."""
    network.to(device).train()
    step = make_step(network, torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM), device)
    return lambda warmup, steps: throughput(make_batches(), step, warmup=warmup, steps=steps, device=device)


def lightning_contestant(network: nn.Module, make_batches: Callable[[], Any]) -> Contestant:
    """Lightning's Trainer; each round has a new one, whose start is not timed."""
    from lightning_loop import LightningLoop, lightning_throughput  # noqa: PLC0415 - it may be missing

    module = LightningLoop(network, lr=LR, momentum=MOMENTUM)
    return lambda warmup, steps: lightning_throughput(module, make_batches(), warmup=warmup, steps=steps)


def make_peers(
    backbone: str, subset: Path, *, batch_size: int, workers: int, device: torch.device
) -> dict[str, Contestant]:
    """Everybody but us, by name."""
    num_classes = sum(1 for _ in (subset / "train").iterdir())

    def network() -> nn.Module:
        return make_network(backbone, num_classes)

    def batches(workers: int) -> Callable[[], Any]:
        folder, transform = subset / "train", train_transform()
        return partial(make_loader, folder, transform, batch_size=batch_size, workers=workers, train=True)

    peers: dict[str, Contestant] = {}
    for count in sorted({0, workers}):
        peers[plain_name(count)] = plain_contestant(network(), batches(count), device=device)
    for name in (TIMM, TIMM_AMP):
        peers[name] = timm_loop.TimmLoop(network(), subset, batch_size=batch_size, device=device, amp=name == TIMM_AMP)
    if importlib.util.find_spec("lightning"):
        peers[lightning_name(workers)] = lightning_contestant(network(), batches(workers))
    return peers


def measure(contestants: dict[str, Contestant], *, rounds: int, warmup: int, steps: int) -> dict[str, float]:
    """Images/s of the median round."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            speeds[name].append(contestant(warmup, steps))
    return {name: statistics.median(values) for name, values in speeds.items()}


def show(report: Report, backbone: str, speeds: dict[str, float], *, on_gpu: bool) -> None:
    """Print the table; on a GPU with the share of its peak that is used."""
    report.say(f"{'':44}{'images/s':>10}{'ours : it':>12}" + (f"{'of 790 TFLOP/s':>17}" if on_gpu else ""))
    for name, speed in speeds.items():
        share = f"{speed * TRAIN_GFLOP[backbone] / PEAK_GFLOPS:>17.1%}" if on_gpu else ""
        report.say(f"{name:44}{speed:>10.1f}{speeds[OURS] / speed:>11.2f}x{share}")


def judge(report: Report, speeds: dict[str, float], *, workers: int, on_gpu: bool) -> None:
    """Print the ratios that have a bar."""
    if on_gpu:
        report.say("the bars are for an H200 with 16 CPU cores and 16 workers")
        _judge_best(report, speeds, [plain_name(workers)], bar=BAR_WORKERS)
        _judge_best(report, speeds, [plain_name(0)], bar=BAR_PLAIN)
    else:
        report.say("the bars are for 2 CPU cores; the first is for the fastest of plain, timm and Lightning by default")
        defaults = [plain_name(0), plain_name(workers), TIMM, lightning_name(workers)]
        _judge_best(report, speeds, defaults, bar=BAR_DEFAULT)
        _judge_best(report, speeds, [TIMM_AMP], bar=BAR_AMP)


def _judge_best(report: Report, speeds: dict[str, float], names: Sequence[str], *, bar: float) -> None:
    """Print the ratio to the fastest of some; a verdict only where none of them is missing."""
    best = max((name for name in names if name in speeds), key=lambda name: speeds[name])
    ratio, missing = speeds[OURS] / speeds[best], [name for name in names if name not in speeds]
    beside = f"{ratio:.2f}x, no verdict without {', '.join(missing)}" if missing else verdict(ratio, bar)
    report.say(f"  ours : {best:42}{beside}")


def run(report: Report, backbone: str, subset: Path, *, arguments: argparse.Namespace, device: torch.device) -> None:
    """Measure one backbone."""
    on_gpu, workers, batch_size = device.type == "cuda", arguments.workers, arguments.batch_size
    with EngineProcess(subset, backbone, batch_size=batch_size) as ours:
        report.say(
            f"\n{backbone}; ours, in its own process: {ours.ready.compute}; "
            f"its images were decoded before, once, in {ours.ready.decoding_seconds:.1f} s"
        )
        peers = make_peers(backbone, subset, batch_size=batch_size, workers=workers, device=device)
        speeds = measure(peers | {OURS: ours}, rounds=arguments.rounds, warmup=arguments.warmup, steps=arguments.steps)
    show(report, backbone, speeds, on_gpu=on_gpu)
    judge(report, speeds, workers=workers, on_gpu=on_gpu)


def parse_arguments(*, on_gpu: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of_splits, required=True, help="folder that holds train/ and test/")
    parser.add_argument("--backbones", nargs="+", choices=TRAIN_GFLOP, default=list(TRAIN_GFLOP))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warmup", type=int, default=60 if on_gpu else 2, help="steps of a round that are not timed")
    parser.add_argument("--steps", type=int, default=300 if on_gpu else 8, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of the second plain loop and of Lightning")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/finetune_<device kind>.md")
    return parser.parse_args()


def main() -> None:
    device = choose_device("auto")
    arguments = parse_arguments(on_gpu=device.type == "cuda")
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # timm's 4 workers on 2 cores are meant
    # No round reaches the end of an epoch, where workers have nothing left to do: all decode while they are timed.
    ahead = PREFETCHED * max(arguments.workers, timm_loop.WORKERS)
    num_images = arguments.batch_size * (arguments.warmup + arguments.steps + ahead)
    title = (
        f"Fine-tuning: {arguments.rounds} rounds of {arguments.warmup} + {arguments.steps} steps of "
        f"{arguments.batch_size} images of {num_images:,}, {IMAGE_SIZE} px"
    )
    report = Report(title, device=device, packages=("torch", "torchvision", "timm", "lightning"))
    if not importlib.util.find_spec("lightning"):
        report.say("Lightning is left out: pip install lightning")
    with tempfile.TemporaryDirectory() as temporary:
        subset = Path(temporary) / "images"
        os.environ["TL_CACHE_DIR"] = str(Path(temporary) / "cache")
        link_subset(arguments.data, subset, num_train=num_images, num_test=100)
        (subset / "val").symlink_to(subset / "test")  # what ours validates on after an epoch, which is not timed
        for backbone in arguments.backbones:
            run(report, backbone, subset, arguments=arguments, device=device)
    if arguments.save:
        report.save("finetune")


if __name__ == "__main__":
    main()
