"""Measure what a frozen prefix saves: an epoch of training of `strategy=partial` against `strategy=finetune`.

    python benchmarks/frozen_prefix.py --data ROOT              ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg
    python benchmarks/frozen_prefix.py --data ROOT --stages 1   the last stage alone
    python benchmarks/frozen_prefix.py --data ROOT --save       the same, and writes it to benchmarks/results/

finetune              every layer is trained
prefix in every epoch partial; the frozen stages run anew in every epoch, as where their activations do not fit
activations kept      partial; the frozen stages ran once, and what they say stays on the device

All train in batches of 32 from random weights by SGD with momentum, without augmentation, by the project's engine with
`runtime=auto`, on the same images, which are decoded once before and stay in memory. The contestants take turns within
a round, each with a new run and a warmup that is not timed; the median round counts. An epoch is that of training,
without validation.

Extracting is what preparing took more with activations kept than with the prefix in every epoch: activations of train,
val and test. It pays after as many epochs as it takes until what they save is more.
"""

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine_loop import EngineLoop, loop_member
from plain_loop import IMAGE_SIZE, folder_of_splits, link_subset
from report import Report

from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.process import choose_device

BACKBONES = ("resnet18", "efficientnet_lite0")
BATCH_SIZE = 32
FINETUNE, EVERY_EPOCH, KEPT = "finetune", "prefix in every epoch", "activations kept"


@dataclass(frozen=True)
class Measured:
    """Seconds of preparing before the first step, and of one epoch of training."""

    preparing: float
    epoch: float


def make_contestants(subset: Path, backbone: str, *, stages: list[int]) -> dict[str, Callable[[], EngineLoop]]:
    """Everything that is measured, by name; each makes a new run."""

    def make(*overrides: str, kept: bool) -> EngineLoop:
        # Without augmentation, or no two epochs would see the same activations.
        member = loop_member(subset, backbone, "augmentation=none", *overrides, batch_size=BATCH_SIZE)
        loop = EngineLoop(member, keeps_activations=kept)
        if kept and not loop.looks_once:
            raise SystemExit("error: the activations do not fit in runtime.image_memory_gb; take fewer images")
        return loop

    contestants: dict[str, Callable[[], EngineLoop]] = {FINETUNE: lambda: make("strategy=finetune", kept=False)}
    for count in stages:
        for kind in (EVERY_EPOCH, KEPT):
            overrides = ("strategy=partial", f"strategy.num_stages={count}")
            contestants[contestant(kind, count)] = partial(make, *overrides, kept=kind == KEPT)
    return contestants


def contestant(kind: str, stages: int) -> str:
    return f"{stages} trained, {kind}"


def measure(
    contestants: Mapping[str, Callable[[], EngineLoop]], *, rounds: int, warmup: int
) -> tuple[dict[str, Measured], str]:
    """Measure the median round of each; returns also what they compute in."""
    preparing: dict[str, list[float]] = {name: [] for name in contestants}
    epochs: dict[str, list[float]] = {name: [] for name in contestants}
    compute = ""
    for _ in range(rounds):
        for name, make in contestants.items():
            loop = make()
            preparing[name].append(loop.preparing_seconds)
            epochs[name].append(loop.seconds(warmup, loop.steps_per_epoch))
            compute = str(loop.compute)
    return {
        name: Measured(statistics.median(preparing[name]), statistics.median(epochs[name])) for name in contestants
    }, compute


def show(report: Report, measured: Mapping[str, Measured], *, stages: list[int]) -> None:
    """Print the table, and for each number of stages what keeping costs and saves."""
    report.say(f"{'':36}{'s an epoch':>12}{'finetune : it':>16}{'s to prepare':>15}")
    for name, seconds in measured.items():
        ratio = measured[FINETUNE].epoch / seconds.epoch
        report.say(f"{name:36}{seconds.epoch:>12.2f}{ratio:>15.2f}x{seconds.preparing:>15.2f}")
    for count in stages:
        every, kept = measured[contestant(EVERY_EPOCH, count)], measured[contestant(KEPT, count)]
        extracting, saved = kept.preparing - every.preparing, every.epoch - kept.epoch
        pays = f"pays after {max(1, math.ceil(extracting / saved))} epoch(s)" if saved > 0 else "never pays"
        report.say(
            f"  {count} trained: {EVERY_EPOCH} : {KEPT} {every.epoch / kept.epoch:.2f}x; "
            f"extracting took {extracting:.2f} s, {pays}"
        )


def run(report: Report, backbone: str, subset: Path, *, arguments: argparse.Namespace) -> None:
    """Measure one backbone."""
    contestants = make_contestants(subset, backbone, stages=arguments.stages)
    measured, compute = measure(contestants, rounds=arguments.rounds, warmup=arguments.warmup)
    report.say(f"\n{backbone}; {compute}")
    show(report, measured, stages=arguments.stages)


def main() -> None:
    device = choose_device("auto")
    on_gpu = device.type == "cuda"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of_splits, required=True, help="folder that holds train/ and test/")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--stages", nargs="+", type=int, default=[1, 2], help="that are trained, counted from the last")
    parser.add_argument("--num-train", type=int, default=3200 if on_gpu else 320)
    parser.add_argument("--num-test", type=int, default=20, help="which are also those of val")
    parser.add_argument("--warmup", type=int, default=20 if on_gpu else 2, help="steps of a round that are not timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/frozen_prefix_<device kind>.md")
    arguments = parser.parse_args()

    if device.type == "cpu":
        keep_freed_memory()  # as a run does; all contestants are ours
    title = (
        f"Frozen prefix: an epoch of {arguments.num_train:,} images, {IMAGE_SIZE} px, "
        f"median of {arguments.rounds} round(s) after {arguments.warmup} steps each"
    )
    report = Report(title, device=device, packages=("torch", "torchvision", "timm"))
    with tempfile.TemporaryDirectory() as temporary:
        subset = Path(temporary) / "images"
        os.environ["TL_CACHE_DIR"] = str(Path(temporary) / "cache")
        link_subset(arguments.data, subset, num_train=arguments.num_train, num_test=arguments.num_test)
        (subset / "val").symlink_to(subset / "test")
        for backbone in arguments.backbones:
            run(report, backbone, subset, arguments=arguments)
    if arguments.save:
        report.save("frozen_prefix")


if __name__ == "__main__":
    main()
