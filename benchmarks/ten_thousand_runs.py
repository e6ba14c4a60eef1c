"""How plan, ledger, report and tracking store stand 10,000 runs: seconds, peak memory, size of the page, runs a second.

`python benchmarks/ten_thousand_runs.py`; each size is measured in a process of its own. `--runs` takes other sizes, the
last of which is told to a new sqlite store; `--tracked` tells fewer.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from report import Report, at_most
from synthetic_sweep import NUM_EPOCHS, make_plan, write_sweep

from tl_experiments.sweep.ledger import RUNNING, Ledger
from tl_experiments.sweep.outcome import read_outcomes
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.sweep.present import REPORT, write_results
from tl_experiments.tracking import journal
from tl_experiments.tracking.delivery import Delivery
from tl_experiments.tracking.journal import Header, Journal
from tl_experiments.tracking.metrics_log import read_metrics
from tl_experiments.tracking.mlflow_store import Store, open_store

MOST_SECONDS = 60.0
MOST_GROWTH = 2.0  # of peak memory, for ten times the runs
SHOWN = 100  # runs of a search
MB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--tracked", type=int, help="runs that the store is told")
    parser.add_argument("--part", choices=("report", "track"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="keep what is printed in results/")
    arguments = parser.parse_args()
    if arguments.part:
        measured = {"report": measure_report, "track": measure_tracking}[arguments.part]
        print(json.dumps(measured(arguments.folder, arguments.tracked)))
        return
    compare(arguments.runs, tracked=arguments.tracked, save=arguments.save)


def compare(sizes: list[int], *, tracked: int | None, save: bool) -> None:
    """Measure each size, and the store with the largest."""
    report = Report(
        f"Sweeps of {', '.join(f'{size:,}' for size in sizes)} runs",
        device=torch.device("cpu"),
        packages=("mlflow", "plotly", "jinja2"),
    )
    peaks = []
    with TemporaryDirectory() as name:
        for size in sizes:
            folder = Path(name) / str(size)
            write_sweep(make_plan(size, folder=folder), folder)
            figures = in_a_process("report", folder)
            peaks.append(figures["peak MiB"])
            report.say(f"\n{size:,} runs of {NUM_EPOCHS} epochs")
            for what, figure in figures.items():
                report.say(f"  {what:<28}{figure:>12,.4g}")
        report.say(f"\nreport: {at_most(figures['report, seconds'], MOST_SECONDS, unit=' s')}")
        report.say(f"peak memory, {sizes[-1]:,} over {sizes[0]:,} runs: {at_most(peaks[-1] / peaks[0], MOST_GROWTH)}")
        count = tracked if tracked is not None else sizes[-1]
        report.say(f"\n{count:,} of them told to a new sqlite store")
        for what, figure in in_a_process("track", folder, tracked=count).items():
            report.say(f"  {what:<28}{figure:>12,.4g}")
    if save:
        report.save("ten_thousand_runs")


def in_a_process(part: str, folder: Path, *, tracked: int = 0) -> dict[str, float]:
    """Measure a part where nothing else has taken memory before."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    done = subprocess.run([*command, "--tracked", str(tracked)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_report(folder: Path, _: int) -> dict[str, float]:
    """Return what it takes to read a sweep and write its report."""
    figures = {"peak before, MiB": peak_mib()}
    with timed(figures, "plan read, seconds"):
        plan = Plan.load(folder).without_own_code()
    with timed(figures, "ledger and results, seconds"):
        read_outcomes(plan, folder)
    with timed(figures, "ledger, ms for one more line"):
        for index in range(20):
            Ledger(folder).append({"job": index, "state": RUNNING})
    figures["ledger, ms for one more line"] *= 1000 / 20
    with timed(figures, "report, seconds"):
        write_results(plan, folder, link=None)
    return {
        **figures,
        "peak MiB": peak_mib(),
        "plan.json, MiB": (folder / "plan.json").stat().st_size / MB,
        "report.html, MiB": (folder / REPORT).stat().st_size / MB,
    }


def measure_tracking(folder: Path, count: int) -> dict[str, float]:
    """Return how fast journals of runs are delivered, and how fast the store answers with all of them in it."""
    store = open_store(f"sqlite:///{folder}/mlflow.db", experiment_name="scale")
    jobs = Plan.load(folder).jobs[:count]
    ends = [time.perf_counter()]
    for job in jobs:
        deliver(job, folder / job.folder, store)
        ends.append(time.perf_counter())
    tenth = max(count // 10, 1)
    figures = {
        "runs a second": count / (ends[-1] - ends[0]),
        "  of the first tenth": tenth / (ends[tenth] - ends[0]),
        "  of the last tenth": tenth / (ends[-1] - ends[-1 - tenth]),
    }
    with timed(figures, f"best {SHOWN}, seconds"):
        store.client.search_runs([store.experiment_id], order_by=["metrics.`val/acc` DESC"], max_results=SHOWN)
    with timed(figures, "one run by its uid, seconds"):
        store.client.search_runs([store.experiment_id], f"tags.`tl.uid` = '{jobs[count // 2].uid}'")
    return figures | {"mlflow.db, kB a run": (folder / "mlflow.db").stat().st_size / count / 1000}


def deliver(job: PlannedJob, folder: Path, store: Store) -> None:
    """Tell the store of one run what a tracker would: params, and all epochs at once."""
    header = Header("scale", job.name, job.uid, None, {"tl.kind": "run"}, store.uri, journal.now())
    with Journal.continued(folder, header) as kept:
        kept.append(journal.BEGIN, time=journal.now(), uid=job.uid)
        kept.append(journal.PARAMS, values=dict(job.values))
        for row in read_metrics(folder / "metrics.jsonl"):
            kept.append_metrics({key: value for key, value in row.items() if key != "epoch"}, step=row["epoch"])
        kept.append(journal.END, status="FINISHED", error=None, time=journal.now())
        delivery = Delivery(kept, address=store.uri)
        while delivery.is_due:
            delivery.step(store)


@contextmanager
def timed(figures: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    figures[what] = time.perf_counter() - start


def peak_mib() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
