"""Measure what speed costs in accuracy, by real sweeps of `run.py -m` whose results are read from each job's folder.

    python benchmarks/accuracy.py --data ROOT                   ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg
    python benchmarks/accuracy.py --parts parity-finetune       one part; only precision needs --data
    python benchmarks/accuracy.py --data ROOT --save            the same, and writes it to benchmarks/results/

Precision: `strategy=feature` with features in bf16 against features in fp32, on digits in their own size and on a
stratified part of the folder.

Parity: the fast path against a plain eager one, on digits. For `strategy=feature` the plain one is a loop of its own
(plain_feature.py): nothing is folded, fused or banked. For `strategy=finetune` the plain one is run.py itself, whose
optimizer is PyTorch's: fp32, contiguous, not fused, not compiled. The fast one runs as the defaults give it.

Both sides have the same seeds. Printed are mean ± standard deviation of test/acc over seeds, and the mean of the
differences seed by seed ± its standard error. A difference is within the spread when it is at most the standard
deviation over seeds, the root mean square of both sides'. For parity there is also the largest difference of test/loss,
which moves before any image changes sides.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from plain_feature import Reached, plain_feature
from plain_loop import folder_of_splits, link_subset
from program import program
from report import Report

from tl_experiments.runtime.process import choose_device

PARITY = "parity-"
PARTS = ("precision", f"{PARITY}feature", f"{PARITY}finetune")
PRECISIONS = ("fp32", "bf16")
LRS = ("1e-3", "1e-2")  # the first one is that of parity
ROUNDING = 1e-9  # so that a tie is one
PLAIN_FINETUNE = (
    *("runtime.train_precision=fp32", "runtime.infer_precision=fp32", "runtime.memory_format=contiguous"),
    *("runtime.fused=false", "runtime.compile=false"),
)


@dataclass(frozen=True)
class Job:
    """One run: its resolved config, and what it reached."""

    config: dict[str, Any]
    reached: Reached
    num_tested: int

    @property
    def compute(self) -> str:
        """What `auto` came to."""
        runtime = self.config["runtime"]
        names = ("train_precision", "infer_precision", "memory_format", "infer_batch_size", "fused")
        return ", ".join(f"{name} {runtime[name]}" for name in names)


class Sweeps:
    """Sweeps in a folder, over the same seeds; features are kept from one to the next."""

    def __init__(self, folder: Path, *, num_seeds: int, epochs: int) -> None:
        self._folder = folder
        self.seeds, self.epochs = range(num_seeds), epochs
        self._settings = (f"seed={','.join(map(str, self.seeds))}", f"epochs={epochs}", "tracking=none")

    def run(self, *overrides: str) -> list[Job]:
        """Run one; what it wrote is removed once it is read."""
        with tempfile.TemporaryDirectory(dir=self._folder) as output:
            place = f"hydra.sweep.dir={output}"
            with program("-m", *overrides, *self._settings, place, cache=self._folder / "cache"):
                pass
            jobs = [_read(path.parent) for path in Path(output).glob("*/result.json")]
        return sorted(jobs, key=lambda job: job.config["seed"])


def _read(folder: Path) -> Job:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    result = json.loads((folder / "result.json").read_text())
    num_tested = len((folder / "predictions.csv").read_text().splitlines()) - 1
    return Job(config, Reached(acc=result["test/acc"], loss=result["test/loss"]), num_tested)


class Table:
    """One row for each comparison."""

    def __init__(self, report: Report, plain: str, fast: str) -> None:
        self._report = report
        report.say(f"{'':26}{plain:>17}{fast:>17}{'difference':>19}")

    def row(self, what: str, plain: Sequence[Reached], fast: Sequence[Reached], *, verdict: str) -> None:
        """Compare seed by seed.

        Args:
            what: is compared.
            plain: what was reached on test, one for each seed.
            fast: the same with the same seeds.
            verdict: what it is called when the difference is within the spread.
        """
        sides = [[reached.acc for reached in side] for side in (plain, fast)]
        differences = [new - old for old, new in zip(*sides, strict=True)]
        mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
        spread = math.sqrt(statistics.mean(statistics.variance(accs) for accs in sides))
        columns = "".join(f"{f'{statistics.mean(accs):.4f} ± {statistics.stdev(accs):.4f}':>17}" for accs in sides)
        within = f"{verdict} {spread:.4f}" if abs(mean) <= spread + ROUNDING else f"not: {verdict} {spread:.4f}"
        self._report.say(f"{what:26}{columns}{f'{mean:+.4f} ± {error:.4f}':>19}  {within}")


def compare_precisions(report: Report, sweeps: Sweeps, *, datasets: dict[str, Sequence[str]]) -> None:
    """Features in bf16 against features in fp32."""
    report.say("\nprecision of the features, test/acc")
    table = Table(report, *PRECISIONS)
    for name, settings in datasets.items():
        precisions, lrs = ",".join(PRECISIONS), ",".join(LRS)
        jobs = sweeps.run("strategy=feature", f"runtime.infer_precision={precisions}", f"lr={lrs}", *settings)
        for lr in LRS:
            chosen = [job for job in jobs if math.isclose(job.config["lr"], float(lr))]
            fp32, bf16 = (
                [job.reached for job in chosen if job.config["runtime"]["infer_precision"] == precision]
                for precision in PRECISIONS
            )
            table.row(f"{name}, lr {lr}", fp32, bf16, verdict="within the spread")
        report.say(f"  one of {jobs[0].num_tested:,} test images is {1 / jobs[0].num_tested:.4f}")


def compare_paths(report: Report, sweeps: Sweeps, *, strategies: Sequence[str]) -> None:
    """The fast path against the plain one, on digits."""
    report.say(f"\nfast path against the plain one, digits, lr {LRS[0]}, test/acc")
    table = Table(report, "plain", "fast")
    if "feature" in strategies:
        plain = [plain_feature(f"lr={LRS[0]}", f"seed={seed}", f"epochs={sweeps.epochs}") for seed in sweeps.seeds]
        _show_parity(report, table, "feature", plain, sweeps.run("strategy=feature", f"lr={LRS[0]}"))
        report.say("  plain: a loop of its own, fp32, contiguous, 32 images at once, nothing folded or fused, no bank")
    if "finetune" in strategies:
        settings = ("strategy=finetune", f"lr={LRS[0]}")
        fast, slow = sweeps.run(*settings), sweeps.run(*settings, *PLAIN_FINETUNE)
        _show_parity(report, table, "finetune", [job.reached for job in slow], fast)
        report.say(f"  plain: {slow[0].compute}")


def _show_parity(report: Report, table: Table, what: str, plain: Sequence[Reached], fast: Sequence[Job]) -> None:
    """Print one comparison with the largest difference of test/loss."""
    table.row(what, plain, [job.reached for job in fast], verdict="agree within the spread")
    losses = max(abs(old.loss - job.reached.loss) for old, job in zip(plain, fast, strict=True))
    report.say(f"  fast:  {fast[0].compute}; test/loss differs by at most {losses:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder_of_splits, help="folder that holds train/ and test/")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--num-train", type=int, default=2000)
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=224, help="of the folder's images")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/accuracy_<device kind>.md")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: one seed has no spread")
    if "precision" in arguments.parts and arguments.data is None:
        parser.error("--data: precision is measured on a folder, too")

    title = f"Accuracy of the fast path: efficientnet_lite0, {arguments.epochs} epochs, {arguments.seeds} seeds"
    report = Report(title, device=choose_device("auto"), packages=("torch", "torchvision", "timm"))
    with tempfile.TemporaryDirectory() as temporary:
        sweeps = Sweeps(Path(temporary), num_seeds=arguments.seeds, epochs=arguments.epochs)
        if "precision" in arguments.parts:
            subset, size = Path(temporary) / "images", arguments.image_size
            link_subset(arguments.data, subset, num_train=arguments.num_train, num_test=arguments.num_test)
            folder = ("dataset=image_folder", f"dataset.root={subset}", f"backbone.image_size={size}")
            report.say(f"folder: {arguments.num_train:,} + {arguments.num_test:,} images, {size} px")
            compare_precisions(report, sweeps, datasets={"digits": (), "folder": folder})
        if strategies := [part.removeprefix(PARITY) for part in arguments.parts if part.startswith(PARITY)]:
            compare_paths(report, sweeps, strategies=strategies)
    if arguments.save:
        report.save("accuracy")


if __name__ == "__main__":
    main()
