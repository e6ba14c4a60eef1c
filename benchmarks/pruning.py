"""Measure what pruning saves: searches of 12 jobs as they are, and the same jobs with `hydra.sweeper.pruner=...`.

    python benchmarks/pruning.py           three searches on the embedded digits, each with no pruner, median, Hyperband
    python benchmarks/pruning.py --save    the same, and writes it to benchmarks/results/

The jobs of a search are drawn at random by its seed (`sampler=random`), so that they are the same whoever prunes: they
differ in strategy, lr (evenly by its logarithm, over four decades), its scale for the backbone, and weight decay. An
epoch of a pruned job has the same bits as without pruning. A pruner loses the best job if it stops the one that comes
to the highest val/acc of all twelve when none is stopped; among equal ones, any of them may win.
"""

import argparse
import csv
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from program import program
from report import Report

from tl_experiments.runtime.process import choose_device

NUM_TRIALS = 12
PRUNERS = ("none", "median", "hyperband")
MIN_TRIALS = 2  # in a search this short, each job that must finish first is a twelfth of all epochs
SPACE = (
    *("strategy=feature,finetune", "lr=tag(log, interval(1e-5,1e-1))"),
    *("strategy.backbone_lr_scale=tag(log, interval(0.01,1))", "optimizer.weight_decay=0,1e-2"),
)
BAR = 1 / 3  # of the epochs, of each search


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        seconds: of the whole process.
        num_epochs: that were trained, over all jobs.
        pruned: numbers of the jobs that were stopped.
        val_acc: best val/acc of each job.
    """

    seconds: float
    num_epochs: int
    pruned: tuple[int, ...]
    val_acc: tuple[float, ...]

    @property
    def best(self) -> float:
        return max(acc for job, acc in enumerate(self.val_acc) if job not in self.pruned)


def search(folder: Path, *, seed: int, pruner: str, arguments: argparse.Namespace) -> Searched:
    """Search as a user does."""
    place, start = folder / f"{seed}-{pruner}", time.perf_counter()
    with program(
        *("-m", "hydra/sweeper=optuna", f"hydra.sweeper.num_trials={NUM_TRIALS}", "hydra.sweeper.sampler=random"),
        *(f"hydra.sweeper.seed={seed}", f"hydra.sweeper.pruner={pruner}", *SPACE),
        f"hydra.sweeper.min_trials={MIN_TRIALS}",
        *(f"dataset.train_size={arguments.num_train}", f"backbone.image_size={arguments.image_size}"),
        *(f"epochs={arguments.epochs}", "tracking=none", "checkpoint.keep_when_finished=false"),
        f"hydra.sweep.dir={place}",
        cache=folder / "cache",
    ):
        pass
    seconds = time.perf_counter() - start
    with (place / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Searched(
        seconds=seconds,
        num_epochs=sum(len(path.read_text().splitlines()) for path in place.glob("*/metrics.jsonl")),
        pruned=tuple(int(row["index"]) for row in rows if row["state"] == "PRUNED"),
        val_acc=tuple(json.loads((place / row["index"] / "result.json").read_text())["val/acc_best"] for row in rows),
    )


def show(report: Report, found: dict[tuple[int, str], Searched], *, num_epochs: int) -> None:
    """Print a line for each search and the share of epochs that each pruner saves."""
    all_epochs = NUM_TRIALS * num_epochs
    report.say(f"\n{'seed':>4}  {'pruner':10}{'epochs':>12}{'saved':>8}{'pruned':>8}{'best val/acc':>14}{'seconds':>9}")
    for (seed, pruner), searched in found.items():
        full = found[seed, "none"]
        lost = "  the best job was stopped" if searched.best < full.best else ""
        epochs, saved = f"{searched.num_epochs} of {all_epochs}", 1 - searched.num_epochs / all_epochs
        numbers = f"{epochs:>12}{saved:>8.0%}{len(searched.pruned):>8}{searched.best:>14.4f}{searched.seconds:>9.0f}"
        report.say(f"{seed:>4}  {pruner:10}{numbers}{lost}")
    report.say(f"\nshare of epochs saved, bar >= {BAR:.2f} in every search without losing its best job")
    for pruner in PRUNERS[1:]:
        mine = {seed: searched for (seed, name), searched in found.items() if name == pruner}
        shares = [1 - searched.num_epochs / all_epochs for searched in mine.values()]
        kept = sum(searched.best >= found[seed, "none"].best for seed, searched in mine.items())
        reached = "met" if min(shares) >= BAR and kept == len(mine) else "missed"
        span = f"{min(shares):.0%} to {max(shares):.0%}, mean {sum(shares) / len(shares):.0%}"
        report.say(f"  {pruner:10}{span}; best job kept in {kept} of {len(mine)} searches: {reached}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of searches, each of other jobs")
    parser.add_argument("--num-train", type=int, default=100)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/pruning_<device kind>.md")
    arguments = parser.parse_args()
    title = (
        f"Pruning: {len(arguments.seeds)} searches of {NUM_TRIALS} jobs x {arguments.epochs} epochs, "
        f"efficientnet_lite0, {arguments.num_train} digits, {arguments.image_size} px"
    )
    report = Report(title, device=choose_device("auto"), packages=("torch", "optuna"))
    found: dict[tuple[int, str], Searched] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            for pruner in PRUNERS:
                found[seed, pruner] = search(Path(temporary), seed=seed, pruner=pruner, arguments=arguments)
    show(report, found, num_epochs=arguments.epochs)
    if arguments.save:
        report.save("pruning")


if __name__ == "__main__":
    main()
