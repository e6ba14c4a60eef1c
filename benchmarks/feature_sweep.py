"""Measure a sweep over learning rates with a frozen backbone: `run.py -m strategy=feature` against the plain loop.

    python benchmarks/feature_sweep.py --data ROOT               ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg
    python benchmarks/feature_sweep.py --data ROOT --workers 4   the plain loop with 4 workers as well
    python benchmarks/feature_sweep.py --data ROOT --save        the same, and writes it to benchmarks/results/

Plain loop: torchvision's Resize, CenterCrop, ToTensor, Normalize by Pillow, ImageFolder, DataLoader, float32, frozen
EfficientNet-Lite0 in eval mode with a new linear head, all images through the backbone in every epoch, one learning
rate after the other. One epoch is measured, train and test; the others, which do the same, are counted. Imports and
loading of the weights are left out.

Ours: the whole process, from the command line to the report, twice: with an empty cache (`TL_CACHE_DIR`), and with the
cache that the first one left. A third time, with `sweep.dry_run=true`, tells what starting and planning take.

Both take turns within a round; the median round counts.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
COLD, WARM, PLAN = "ours, cold cache", "ours, warm cache", "ours, start and plan alone"
BARS = {COLD: 150.0, WARM: 500.0}  # on 2 CPU cores, against 0 workers


@dataclass(frozen=True)
class Timed:
    """Seconds of something, and what it came to."""

    seconds: float
    outcome: str


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


def plain_epoch(subset: Path, *, workers: int, device: torch.device) -> Timed:
    """One epoch, train and test."""
    train, test = (
        make_loader(subset / split, eval_transform(), batch_size=BATCH_SIZE, workers=workers, train=split == "train")
        for split in ("train", "test")
    )
    model = PlainModel(sum(1 for _ in (subset / "train").iterdir())).to(device)
    step = make_step(model, torch.optim.AdamW(model.head.parameters(), lr=PLAIN_LR), device)
    start = time.perf_counter()
    for images, labels in train:
        step(images, labels)
    num_correct, num_tested = 0, 0
    with torch.no_grad():
        for images, labels in test:
            num_correct += int((model(images.to(device)).argmax(dim=1).cpu() == labels).sum())
            num_tested += len(labels)
    synchronise(device)
    seconds = time.perf_counter() - start
    return Timed(seconds, f"test/acc {num_correct / num_tested:.4f} after one epoch at lr {PLAIN_LR:g}")


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
    subset: Path, folder: Path, *, lrs: list[str], arguments: argparse.Namespace, device: torch.device
) -> dict[str, Timed]:
    """The median of all rounds by contestant: of the plain loop one epoch, of ours everything."""
    contestants: dict[str, Callable[[Path], Timed]] = {}
    for workers in sorted({0, arguments.workers}):
        contestants[plain_name(workers)] = lambda _, workers=workers: plain_epoch(
            subset, workers=workers, device=device
        )
    for kind in (COLD, WARM, PLAN):
        contestants[kind] = lambda place, kind=kind: our_sweep(subset, place, kind=kind, lrs=lrs, arguments=arguments)
    rounds: dict[str, list[Timed]] = {name: [] for name in contestants}
    for number in range(arguments.rounds):
        place = folder / str(number)
        place.mkdir(parents=True)
        for name, contestant in contestants.items():
            rounds[name].append(contestant(place))
    return {
        name: Timed(statistics.median(timed.seconds for timed in values), values[0].outcome)
        for name, values in rounds.items()
    }


def show(report: Report, measured: dict[str, Timed], *, num_epochs: int, workers: int) -> None:
    """Print the table, where ours spends its time, and the ratios."""
    report.say(f"\n{'':28}{'seconds':>10}")
    totals = {name: timed.seconds for name, timed in measured.items()}
    for name in (plain_name(count) for count in sorted({0, workers})):
        totals[name] *= num_epochs
        how = f"counted: {num_epochs} x {measured[name].seconds:.2f} s; {measured[name].outcome}"
        report.say(f"{name:28}{totals[name]:>10.1f}  {how}")
    for name in (COLD, WARM):
        report.say(f"{name:28}{totals[name]:>10.1f}  measured, whole process; {measured[name].outcome}")

    report.say("\nwhere ours spends them, by subtraction")
    for part, seconds in (
        ("images and backbone", totals[COLD] - totals[WARM]),
        ("heads, records, report", totals[WARM] - totals[PLAN]),
        ("start and plan", totals[PLAN]),
    ):
        report.say(f"  {part:26}{seconds:>10.1f}")

    report.say("\nplain loop : ours; the bars are for 2 CPU cores and 0 workers")
    for count in sorted({0, workers}):
        for kind, bar in BARS.items():
            ratio = totals[plain_name(count)] / totals[kind]
            beside = verdict(ratio, bar) if count == 0 else f"{ratio:.2f}x"
            report.say(f"  {plain_name(count)} : {kind:18}{beside}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of_splits, required=True, help="folder that holds train/ and test/")
    parser.add_argument("--workers", type=int, default=0, help="of a second plain loop")
    parser.add_argument("--our-workers", type=int, default=0, help="runtime.workers of ours")
    parser.add_argument("--num-train", type=int, default=2000)
    parser.add_argument("--num-test", type=int, default=400)
    parser.add_argument("--lrs", type=int, default=10, help="learning rates, from 1e-4 to 1e-1")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
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
        measured = measure(subset, Path(temporary) / "ours", lrs=lrs, arguments=arguments, device=device)
    show(report, measured, num_epochs=arguments.lrs * arguments.epochs, workers=arguments.workers)
    if arguments.save:
        report.save("feature_sweep")


if __name__ == "__main__":
    main()
