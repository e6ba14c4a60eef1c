"""What sizes nobody has run here would cost: a model with measured constants, and a check of it on sizes that are run.

`python benchmarks/scale_model.py` prints the predictions that docs/scale.md quotes; `--check` fits lines to small sizes
on this machine, now, and compares what they say of larger ones with what those take.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# Measured on 2 CPU cores; docs/scale.md names where each is from.
DECODE_SMALL = 6_865 / 2  # images/s of a core: JPEG of 32 px
DECODE_PHOTO = 310.0  # the same, JPEG of 500 x 375 px, 90 kB
FORWARD_CPU = 1_185.0  # images/s of 2 cores: EfficientNet-Lite0, 64 px, float32
SCAN_SECONDS = 13.8e-6  # of a core for a file of a folder
SCAN_BYTES = 187  # of memory for a file of a folder
ORDER_BYTES = 24  # of memory for an image, while an epoch is shuffled
HEAD_SECONDS = 2.2e-10  # of 2 cores for an image, a head, a feature and a class, forward and backward
PLAN_SECONDS = 0.037  # of a core to compose and check a job
PLAN_BYTES = 0.013 * 2**20  # of memory for a job of a plan
REPORT_SECONDS, REPORT_BASE = 1.3e-3, 0.7  # for a run, and for none
DELIVERY_SECONDS = 0.2  # of a store for a run of 60 points; a server or sqlite, busy
STORE_BYTES = 39_000  # of PostgreSQL for a run of 70 points, 25 params and 18 tags

# Assumed: no GPU was at hand. What public benchmarks of a current data-centre GPU have, rounded down.
FORWARD_GPU = 3_000.0  # images/s: ResNet-50 size, 224 px, bfloat16
TRAIN_GPU = 1_000.0  # images/s, forward and backward
LINK = 25e9  # bytes/s that a rank sends to the next: 200 Gb/s
PARAMS = 25.6e6  # of ResNet-50

FEATURES, VIEWS, FLOAT = 2_048, 1, 4
DAY, YEAR = 86_400.0, 365 * 86_400.0


@dataclass(frozen=True)
class Machine:
    """What features are extracted on.

    Attributes:
        name: for people.
        forward: images/s of its backbone.
        cores: that decode.
        shares: whether the backbone runs on the cores that decode.
    """

    name: str
    forward: float
    cores: int
    shares: bool


MACHINES = (
    Machine("2 cores", FORWARD_CPU / 12, 2, shares=True),  # 224 px are 12 times the pixels of 64 px
    Machine("1 GPU, 16 cores", FORWARD_GPU, 16, shares=False),
    Machine("8 GPUs, 128 cores", 8 * FORWARD_GPU, 128, shares=False),
    Machine("64 GPUs, 1,024 cores", 64 * FORWARD_GPU, 1024, shares=False),
)
IMAGES = (10**3, 10**4, 10**5, 1_281_167, 10**9)
RUNS = (10, 100, 1_000, 10_000, 100_000)
RANKS = (1, 8, 64, 512, 1_000)


def extract_seconds(images: float, machine: Machine) -> float:
    """Return how long features take: the slower of decoding and network, or both in turn where they share the cores."""
    decode = machine.cores * DECODE_PHOTO
    rate = 1 / (1 / decode + 1 / machine.forward) if machine.shares else min(decode, machine.forward)
    return images / rate


def store_bytes(images: float, *, features: int = FEATURES, views: int = VIEWS) -> float:
    """Return the size of a feature store: N x D x 4 bytes x views."""
    return images * features * FLOAT * views


def head_seconds(images: float, *, heads: int, classes: int, features: int = FEATURES) -> float:
    """Return what an epoch of heads on features takes on 2 cores."""
    return HEAD_SECONDS * images * heads * features * classes


def step_seconds(ranks: int, *, global_batch: int, rate: float = TRAIN_GPU, params: float = PARAMS) -> float:
    """Return a step of DDP: the rank's share, then a ring all-reduce of the gradients that hides behind nothing."""
    compute = global_batch / ranks / rate
    reduce = 2 * (ranks - 1) / ranks * params * FLOAT / LINK
    return compute + reduce


def efficiency(ranks: int, *, batch_of_rank: int = 64) -> float:
    """Return the images/s of so many ranks over that many times those of one, 0 to 1."""
    batch = batch_of_rank * ranks
    return batch_of_rank / TRAIN_GPU / step_seconds(ranks, global_batch=batch)


def report_seconds(runs: float, *, base: float = REPORT_BASE, each: float = REPORT_SECONDS) -> float:
    return base + each * runs


def predictions() -> str:
    """Return the tables of docs/scale.md, as Markdown."""
    images = _table(
        ["images", "store of features", "scan, memory", "shuffle, memory", *(machine.name for machine in MACHINES)],
        [
            [
                f"{count:,}",
                _size(store_bytes(count)),
                f"{_time(SCAN_SECONDS * count)}, {_size(SCAN_BYTES * count)}",
                _size(ORDER_BYTES * count),
                *(_time(extract_seconds(count, machine)) for machine in MACHINES),
            ]
            for count in IMAGES
        ],
    )
    runs = _table(
        ["runs", "plan", "plan, memory", "report", "delivered by one process", "PostgreSQL"],
        [
            [
                f"{count:,}",
                _time(PLAN_SECONDS * count),
                _size(PLAN_BYTES * count),
                _time(report_seconds(count)),
                _time(DELIVERY_SECONDS * count),
                _size(STORE_BYTES * count),
            ]
            for count in RUNS
        ],
    )
    ranks = _table(
        ["ranks", "images/s", "efficiency", "an epoch of ImageNet", "cores that decode for them"],
        [
            [
                f"{count:,}",
                f"{count * TRAIN_GPU * efficiency(count):,.0f}",
                f"{efficiency(count):.0%}",
                _time(IMAGES[3] / (count * TRAIN_GPU * efficiency(count))),
                f"{count * TRAIN_GPU * efficiency(count) / DECODE_PHOTO:,.0f}",
            ]
            for count in RANKS
        ],
    )
    heads = head_seconds(IMAGES[3], heads=10, classes=1_000)
    line = f"Ten heads of 1,000 classes on the features of ImageNet: {_time(heads)} an epoch on 2 cores."
    return "\n\n".join([images, runs, ranks, line])


def check(*, images: Sequence[int] = (250, 500, 2_000), runs: Sequence[int] = (100, 300, 1_000)) -> list[str]:
    """Fit a line to the two smaller sizes of each, on this machine; return a line with what it says of the largest."""
    import torch  # noqa: PLC0415 - predictions need none of it
    from scaling import make_extraction  # noqa: PLC0415

    extract = make_extraction(torch.device("cpu"))
    extract(images[0])()  # the first one warms up
    lines = [_checked("extraction", "images", images, lambda count: extract(count)())]
    with TemporaryDirectory() as name:
        lines.append(_checked("report", "runs", runs, lambda count: _report(count, Path(name))))
    return lines


def _report(count: int, place: Path) -> float:
    from synthetic_sweep import make_plan, write_sweep  # noqa: PLC0415

    from tl_experiments.sweep.plan import Plan  # noqa: PLC0415
    from tl_experiments.sweep.present import write_results  # noqa: PLC0415

    folder = place / str(count)
    if not folder.exists():
        write_sweep(make_plan(count, folder=folder), folder)
    start = time.perf_counter()
    write_results(Plan.load(folder), folder, link=None)
    return time.perf_counter() - start


def _checked(what: str, unit: str, sizes: Sequence[int], measure: Callable[[int], float]) -> str:
    small, middle, large = sizes
    first, second, measured = (min(measure(size) for _ in range(2)) for size in sizes)
    each = (second - first) / (middle - small)
    predicted = first + each * (large - small)
    told = f"{what} of {large:,} {unit}: predicted {predicted:.2f} s from {small:,} and {middle:,}"
    return f"{told}, measured {measured:.2f} s, ratio {measured / predicted:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["--:"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _size(count: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B"


def _time(seconds: float) -> str:
    for size, unit in ((YEAR, "years"), (DAY, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the model with sizes that are run now")
    print("\n".join(check()) if parser.parse_args().check else predictions())


if __name__ == "__main__":
    main()
