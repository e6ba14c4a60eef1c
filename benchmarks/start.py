"""Measure what starts and what is recorded: seconds that a user waits for other things than training.

    python benchmarks/start.py          on digits, nothing else is needed
    python benchmarks/start.py --save   the same, and writes it to benchmarks/results/

help         `python run.py --help`, whole process
first step   from the command until the first line of the run's metrics.jsonl is there, on 32 training images of digits,
             so that an epoch is one step; this includes one validation. `strategy=finetune`, and `strategy=feature`
             with its features in the cache, both tracked by MLflow in a store that exists
MLflow       a sweep of 16 feature runs, 10 epochs each, with tracking=mlflow less the same with tracking=none, by run;
             once in a new sqlite store, whose making is part of the cost, then again in the same store

Everything is done once before, untimed: the machine is warm, bytecode is compiled and features are cached. The kinds
of command take turns within a round; the median round counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from program import program
from report import Report, at_most

from tl_experiments.runtime.process import choose_device

POLL_SECONDS = 0.01
NUM_IMAGES = 32  # one step
STRATEGIES = ("finetune", "feature")
HELP, UNTRACKED, NEW_STORE, SAME_STORE = "help", "tracking=none", "tracking=mlflow, new store", "the same store again"
BAR_HELP, BAR_FIRST_STEP, BAR_MLFLOW = 1.5, 8.0, 0.5  # seconds, on 2 CPU cores


def show_help(folder: Path) -> float:
    """Seconds of `--help`."""
    start = time.perf_counter()
    with program("--help", cache=folder / "cache"):
        pass
    return time.perf_counter() - start


def first_step(folder: Path, strategy: str) -> float:
    """Seconds until the first epoch, of one step, is recorded; the run then goes on to its end."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        metrics = Path(output) / "metrics.jsonl"
        start = time.perf_counter()
        seconds = None
        with program(
            *(f"strategy={strategy}", f"dataset.train_size={NUM_IMAGES}", f"batch_size={NUM_IMAGES}", "epochs=1"),
            *(f"hydra.run.dir={output}", f"tracking.uri=sqlite:///{folder / 'first_step.db'}"),
            cache=folder / "cache",
        ) as process:
            while seconds is None and process.poll() is None:
                if metrics.exists() and metrics.read_bytes().endswith(b"\n"):
                    seconds = time.perf_counter() - start
                time.sleep(POLL_SECONDS)
    if seconds is None:
        raise SystemExit("error: the run ended before its metrics.jsonl was seen")
    return seconds


def sweep(folder: Path, *tracking: str, runs: int) -> float:
    """Seconds of a sweep over learning rates, whole process."""
    lrs = ",".join(f"{lr:.4g}" for lr in np.geomspace(1e-4, 1e-1, runs))
    with tempfile.TemporaryDirectory(dir=folder) as output:
        start = time.perf_counter()
        with program("-m", f"lr={lrs}", f"hydra.sweep.dir={output}", *tracking, cache=folder / "cache"):
            pass
        return time.perf_counter() - start


def tracked_sweeps(folder: Path, *, runs: int) -> dict[str, float]:
    """Seconds of the sweep without tracking, in a store that it makes, and in the same store again."""
    seconds = {UNTRACKED: sweep(folder, "tracking=none", runs=runs)}
    with tempfile.TemporaryDirectory(dir=folder) as store:
        uri = f"tracking.uri=sqlite:///{Path(store) / 'mlflow.db'}"
        for kind in (NEW_STORE, SAME_STORE):
            seconds[kind] = sweep(folder, "tracking=mlflow", uri, runs=runs)
    return seconds


def measure(folder: Path, *, rounds: int, runs: int) -> dict[str, list[float]]:
    """Seconds of every kind of command in each round."""
    commands: dict[str, Callable[[], float]] = {HELP: lambda: show_help(folder)}
    for strategy in STRATEGIES:
        commands[strategy] = lambda strategy=strategy: first_step(folder, strategy)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        measured = {name: command() for name, command in commands.items()} | tracked_sweeps(folder, runs=runs)
        for name, value in measured.items() if number else ():  # the first round warms up
            seconds.setdefault(name, []).append(value)
    return seconds


def show(report: Report, rounds: dict[str, list[float]], *, runs: int) -> None:
    """Print the median seconds beside what they should not exceed; of a difference all rounds, which tell its noise."""
    seconds = {name: statistics.median(values) for name, values in rounds.items()}
    report.say("\nseconds; the bars are for 2 CPU cores")
    report.say(f"  {'python run.py --help':44}{at_most(seconds[HELP], BAR_HELP, unit=' s')}")
    for strategy in STRATEGIES:
        warm = ", features cached" if strategy == "feature" else ""
        what = f"to the first step, {strategy}{warm}"
        report.say(f"  {what:44}{at_most(seconds[strategy], BAR_FIRST_STEP, unit=' s')}")
    report.say("  (one validation is part of both)")

    report.say(f"\nMLflow, a sweep of {runs} feature runs")
    report.say(f"  {UNTRACKED:44}{seconds[UNTRACKED]:.2f} s")
    for kind in (NEW_STORE, SAME_STORE):
        costs = [(with_it - without) / runs for with_it, without in zip(rounds[kind], rounds[UNTRACKED], strict=True)]
        a_run = at_most(statistics.median(costs), BAR_MLFLOW, unit=" s")
        report.say(f"  {kind:44}{seconds[kind]:.2f} s; a run costs {a_run}")
        report.say(f"  {'':44}median of {', '.join(f'{cost:.2f}' for cost in costs)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=16, help="of the sweep")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/start_<device kind>.md")
    arguments = parser.parse_args()

    title = f"Start and tracking: digits, efficientnet_lite0, median of {arguments.rounds} round(s)"
    report = Report(title, device=choose_device("auto"), packages=("torch", "hydra-core", "mlflow"))
    with tempfile.TemporaryDirectory() as temporary:
        rounds = measure(Path(temporary), rounds=arguments.rounds, runs=arguments.runs)
    show(report, rounds, runs=arguments.runs)
    if arguments.save:
        report.save("start")


if __name__ == "__main__":
    main()
