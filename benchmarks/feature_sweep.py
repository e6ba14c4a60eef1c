"""Measure a sweep over learning rates with a frozen backbone: `run.py -m strategy=feature` against the plain loop.

    python benchmarks/feature_sweep.py --data ROOT               ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg
    python benchmarks/feature_sweep.py --data ROOT --workers 4   the plain loop with 4 workers as well
    python benchmarks/feature_sweep.py --data ROOT --save        the same, and writes it to benchmarks/results/

Plain loop: torchvision's Resize, CenterCrop, ToTensor, Normalize by Pillow, ImageFolder, DataLoader, float32, frozen
EfficientNet-Lite0 in eval mode with a new linear head, all images through the backbone in every epoch, one learning
rate after the other. It tests in every epoch, as the tutorial's loop does; the bars are for that. Below them the same
ratios for a loop that tests once for each learning rate. One epoch a round is measured, after a short warmup, the
training pass and the test pass each; the others, which do the same, are counted. Imports and loading of the weights are
left out.

Ours: the whole process, from the command line to the report, twice a round: with an empty cache (`TL_CACHE_DIR`), and
with the cache that the first one left. A third time, with `sweep.dry_run=true`, tells what starting and planning take.
The median round counts; each begins with an empty folder.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from plain_loop import IMAGE_SIZE, eval_transform, folder_of_splits, link_subset, make_loader, make_step, synchronise
from program import program
from report import Report, verdict
from torch import nn

from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.runtime.process import choose_device

BATCH_SIZE = 32
PLAIN_LR = 1e-3  # of the one epoch that is measured
WARMUP_STEPS = 2
COLD, WARM, PLAN = "ours, cold cache", "ours, warm cache", "ours, start and plan alone"
BARS = {COLD: 150.0, WARM: 500.0}  # on 2 CPU cores, against 0 workers


@dataclass(frozen=True)
class Timed:
    """Seconds of something, and what it came to."""

    seconds: float
    outcome: str


@dataclass(frozen=True)
class PlainEpoch:
    """Seconds of one pass over train with updates and of one over test, and what they came to."""

    train_seconds: float
    test_seconds: float
    outcome: str

    def total(self, *, num_epochs: int, num_tests: int) -> float:
        """Seconds of many."""
        return num_epochs * self.train_seconds + num_tests * self.test_seconds


class PlainModel(nn.Module):
    """A frozen backbone in eval mode and a new linear head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = efficientnet_lite0(
            name="efficientnet_lite0", weights="default", image_size=IMAGE_SIZE, preferred_size=None, seed=0
        )
        self.backbone.requires_grad_(False).eval()
        self.head = nn.Linear(self.backbone.feature_dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))


def plain_epoch(subset: Path, *, workers: int, device: torch.device) -> PlainEpoch:
    """Measure one epoch from a new head on."""
    train, test = (
        make_loader(subset / split, eval_transform(), batch_size=BATCH_SIZE, workers=workers, train=split == "train")
        for split in ("train", "test")
    )
    num_classes = sum(1 for _ in (subset / "train").iterdir())
    warm = PlainModel(num_classes).to(device)
    _train(warm, islice(train, WARMUP_STEPS), device)
    _test(warm, islice(test, WARMUP_STEPS), device)
    model = PlainModel(num_classes).to(device)
    synchronise(device)
    start = time.perf_counter()
    _train(model, train, device)
    synchronise(device)
    trained = time.perf_counter()
    acc = _test(model, test, device)
    return PlainEpoch(
        train_seconds=trained - start,
        test_seconds=time.perf_counter() - trained,
        outcome=f"test/acc {acc:.4f} after one epoch at lr {PLAIN_LR:g}",
    )


def _train(model: PlainModel, batches: Iterable, device: torch.device) -> None:
    step = make_step(model, torch.optim.AdamW(model.head.parameters(), lr=PLAIN_LR), device)
    for images, labels in batches:
        step(images, labels)


@torch.no_grad()
def _test(model: PlainModel, batches: Iterable, device: torch.device) -> float:
    """Accuracy; the device is waited for in every batch, as tutorials do."""
    num_correct, num_tested = 0, 0
    for images, labels in batches:
        num_correct += int((model(images.to(device)).argmax(dim=1).cpu() == labels).sum())
        num_tested += len(labels)
    return num_correct / num_tested


def our_sweep(subset: Path, folder: Path, *, kind: str, lrs: list[str], arguments: argparse.Namespace) -> Timed:
    """Run the sweep as a user does, with everything it writes below `folder`."""
    output = folder / kind.replace(" ", "_").replace(",", "")
    start = time.perf_counter()
    with program(
        *("-m", "strategy=feature", f"lr={','.join(lrs)}", f"epochs={arguments.epochs}"),
        *("dataset=image_folder", f"dataset.root={subset}", f"backbone.image_size={IMAGE_SIZE}"),
        *(f"batch_size={BATCH_SIZE}", f"runtime.workers={arguments.our_workers}"),
        *(f"hydra.sweep.dir={output}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"),
        *(["sweep.dry_run=true"] if kind == PLAN else []),
        cache=folder / "cache",
    ):
        pass
    seconds = time.perf_counter() - start
    return Timed(seconds, "" if kind == PLAN else best_of(output, lrs))


def best_of(output: Path, lrs: list[str]) -> str:
    """The run that is best on val, and its accuracy on test."""
    results = [json.loads((output / str(job) / "result.json").read_text()) for job in range(len(lrs))]
    best = max(range(len(lrs)), key=lambda job: results[job]["val/acc_best"])
    return f"test/acc {results[best]['test/acc']:.4f} of the run that is best on val, lr {lrs[best]}"


def plain_name(workers: int) -> str:
    return f"plain loop, {workers} workers"


def measure(
    subset: Path, folder: Path, *, lrs: list[str], device: torch.device, arguments: argparse.Namespace
) -> tuple[dict[str, PlainEpoch], dict[str, list[Timed]]]:
    """The median epoch of each plain loop, and all rounds of each kind of command; they take turns within a round."""
    plain: dict[int, list[PlainEpoch]] = {workers: [] for workers in sorted({0, arguments.workers})}
    ours: dict[str, list[Timed]] = {COLD: [], WARM: [], PLAN: []}
    for number in range(arguments.rounds):
        for workers, epochs in plain.items():
            epochs.append(plain_epoch(subset, workers=workers, device=device))
        place = folder / str(number)
        place.mkdir(parents=True)
        for kind, values in ours.items():
            values.append(our_sweep(subset, place, kind=kind, lrs=lrs, arguments=arguments))
    return {plain_name(workers): median_epoch(epochs) for workers, epochs in plain.items()}, ours


def median_epoch(epochs: list[PlainEpoch]) -> PlainEpoch:
    return PlainEpoch(
        train_seconds=statistics.median(epoch.train_seconds for epoch in epochs),
        test_seconds=statistics.median(epoch.test_seconds for epoch in epochs),
        outcome=epochs[0].outcome,
    )


def show(
    report: Report, plain: dict[str, PlainEpoch], ours: dict[str, list[Timed]], *, num_epochs: int, num_lrs: int
) -> None:
    """Print the table, where ours spends its time, and the ratios.

    Args:
        report: where to.
        plain: the measured epoch by name of the loop; that without workers comes first.
        ours: all rounds by kind.
        num_epochs: of all learning rates together.
        num_lrs: learning rates.
    """
    medians = {kind: statistics.median(timed.seconds for timed in values) for kind, values in ours.items()}
    every = {name: epoch.total(num_epochs=num_epochs, num_tests=num_epochs) for name, epoch in plain.items()}
    once = {name: epoch.total(num_epochs=num_epochs, num_tests=num_lrs) for name, epoch in plain.items()}

    report.say(f"\n{'':28}{'seconds':>10}")
    for name, epoch in plain.items():
        counts = f"{num_epochs} x ({epoch.train_seconds:.2f} train + {epoch.test_seconds:.2f} test)"
        report.say(f"{name:28}{every[name]:>10.1f}  counted: {counts}; {epoch.outcome}")
        counts = f"{num_epochs} x {epoch.train_seconds:.2f} train + {num_lrs} x {epoch.test_seconds:.2f} test"
        report.say(f"{'  when it tests once an lr':28}{once[name]:>10.1f}  counted: {counts}")
    for kind in BARS:
        rounds = ", ".join(f"{timed.seconds:.1f}" for timed in ours[kind])
        report.say(f"{kind:28}{medians[kind]:>10.1f}  whole process, median of {rounds}; {ours[kind][0].outcome}")

    report.say("\nwhere ours spends them, by subtraction")
    for part, seconds in (
        ("images and backbone", medians[COLD] - medians[WARM]),
        ("heads, records, report", medians[WARM] - medians[PLAN]),
        ("start and plan", medians[PLAN]),
    ):
        report.say(f"  {part:26}{seconds:>10.1f}")

    report.say("\nplain loop, which tests in every epoch : ours; the bars are for 2 CPU cores and 0 workers")
    for name, seconds in every.items():
        for kind, bar in BARS.items():
            ratio = seconds / medians[kind]
            beside = verdict(ratio, bar) if name == plain_name(0) else f"{ratio:.2f}x"
            report.say(f"  {name} : {kind:18}{beside}")
    report.say("the same when the plain loop tests once for each learning rate")
    for name, seconds in once.items():
        for kind in BARS:
            report.say(f"  {name} : {kind:18}{seconds / medians[kind]:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of_splits, required=True, help="folder that holds train/ and test/")
    parser.add_argument("--workers", type=int, default=0, help="of a second plain loop")
    parser.add_argument("--our-workers", type=int, default=0, help="runtime.workers of ours")
    parser.add_argument("--num-train", type=int, default=2000)
    parser.add_argument("--num-test", type=int, default=400)
    parser.add_argument("--lrs", type=int, default=10, help="learning rates, from 1e-4 to 1e-1")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="of one plain epoch and of ours")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/feature_sweep_<device kind>.md")
    arguments = parser.parse_args()

    device = choose_device("auto")
    lrs = [f"{lr:.3g}" for lr in np.geomspace(1e-4, 1e-1, arguments.lrs)]
    title = (
        f"Feature sweep: {arguments.lrs} learning rates x {arguments.epochs} epochs, efficientnet_lite0, "
        f"{arguments.num_train:,} + {arguments.num_test:,} images, {IMAGE_SIZE} px, {arguments.rounds} round(s)"
    )
    report = Report(title, device=device, packages=("torch", "torchvision", "timm"))
    with tempfile.TemporaryDirectory() as temporary:
        subset = Path(temporary) / "images"
        link_subset(arguments.data, subset, num_train=arguments.num_train, num_test=arguments.num_test)
        plain, ours = measure(subset, Path(temporary) / "ours", lrs=lrs, device=device, arguments=arguments)
    show(report, plain, ours, num_epochs=arguments.lrs * arguments.epochs, num_lrs=arguments.lrs)
    if arguments.save:
        report.save("feature_sweep")


if __name__ == "__main__":
    main()
