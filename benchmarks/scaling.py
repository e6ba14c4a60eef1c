"""Measure how time and memory grow with the size of an experiment.

    python benchmarks/scaling.py                     everything
    python benchmarks/scaling.py --parts heads       of heads, extraction, memory
    python benchmarks/scaling.py --plot scaling.png  the same as a figure
    python benchmarks/scaling.py --save              the same, and writes the tables to benchmarks/results/

heads: one epoch of training and validation on made-up features, by the project's engine, AdamW, a seed and a rate for
each head. One factor grows, the others stay at the base. extraction: features of grey 8 x 8 images, as digits, drawn at
64 px, on EfficientNet-Lite0 in the precision and layout that `runtime=auto` takes, without a cache.

All sizes take turns within a round; the median round counts. The exponent is the slope of log seconds over log size in
the larger half of the sizes: 1 is linear.

memory: real commands on digits at 32 px without tracking, whose processes are watched (Linux only): one run with more
and more epochs, and sweeps with more and more jobs, of which `sweep.max_heads` are trained together.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from head_training import fit_seconds, make_bank, make_trainer, make_up
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from peak_memory import Peak, can_measure, peak_memory
from plain_loop import synchronise
from precision import auto_compute
from program import program
from report import Report, at_most

from tl_experiments.data.images import Images, load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Normalise, make_canvas
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.features.store import FeatureStore
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.process import choose_device

PARTS = ("heads", "extraction", "memory")
IMAGE_SIZE = 64  # of extraction, as digits asks for
NUM_EXTRACTED = (250, 500, 1000, 2000, 4000)
NUM_EPOCHS, NUM_JOBS = (2, 20, 100), (8, 64, 192)
BAR_OF_EXPONENT, BAR_OF_MEMORY = 1.1, 1.1


@dataclass(frozen=True)
class Scale:
    """What head training costs depends on."""

    images: int = 2000
    classes: int = 10
    heads: int = 16
    width: int = 512

    def __str__(self) -> str:
        return f"{self.images:,} images, {self.classes} classes, {self.heads} heads, width {self.width}"


FACTORS: dict[str, Sequence[int]] = {
    "images": (1000, 2000, 4000, 8000, 16000),
    "classes": (2, 5, 10, 30, 100, 300, 1000),
    "heads": (1, 2, 4, 8, 16, 32, 64, 128),
    "width": (128, 256, 512, 1024, 2048, 4096),
}


@dataclass(frozen=True)
class Curve:
    """Seconds by size."""

    factor: str
    seconds: Mapping[int, float]

    @property
    def exponent(self) -> float:
        """Slope of the larger half in logarithms."""
        sizes = sorted(self.seconds)
        upper = sizes[len(sizes) // 2 :]
        return float(np.polyfit(np.log(upper), np.log([self.seconds[size] for size in upper]), 1)[0])


def measure(factor: str, sizes: Sequence[int], make: Callable[[int], Callable[[], float]], *, rounds: int) -> Curve:
    """Time every size once a round.

    Args:
        factor: what grows.
        sizes: from small to large.
        make: size → what prepares and runs it, and returns its seconds.
        rounds: whose median counts.
    """
    contestants = {size: make(size) for size in sizes}
    contestants[sizes[0]]()  # the first one also plans
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, contestant in contestants.items():
            seconds[size].append(contestant())
    return Curve(factor, {size: statistics.median(values) for size, values in seconds.items()})


def head_training(scale: Scale, device: torch.device) -> Callable[[], float]:
    """One epoch."""
    data = make_up(num_images=scale.images, feature_dim=scale.width, num_classes=scale.classes, device=device)
    seeds, lrs = range(scale.heads), np.geomspace(1e-4, 1e-2, scale.heads).tolist()

    def run() -> float:
        bank = make_bank(data, seeds=seeds)
        trainer = make_trainer(data, bank, seeds=seeds, lrs=lrs, epochs=1, optimizer=torch.optim.AdamW)
        return fit_seconds(trainer, device)

    return run


def make_extraction(device: torch.device) -> Callable[[int], Callable[[], float]]:
    """Return what makes an extraction of a number of images."""
    backbone = efficientnet_lite0(
        name="efficientnet_lite0", weights="default", image_size=IMAGE_SIZE, preferred_size=None, seed=0
    )
    compute = auto_compute(backbone.name, IMAGE_SIZE, trains_backbone=False, device=device)
    backbone.to(device=device, memory_format=compute.memory_format)  # type: ignore[call-overload]
    spec = backbone.input_spec
    store = FeatureStore(
        backbone, normalise=Normalise(mean=spec.mean, std=spec.std), compute=compute, cached=False, watch=UNWATCHED
    )

    def make(num_images: int) -> Callable[[], float]:
        images = _grey_images(num_images)

        def run() -> float:
            start = time.perf_counter()
            store.features(images)
            synchronise(device)
            return time.perf_counter() - start

        return run

    return make


def _grey_images(num_images: int) -> Images:
    """Noise of the digits' shape, drawn anew in each pass."""
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, 8, 8), dtype=np.uint8)
    source = ArraySource(pixels, np.zeros(num_images, dtype=np.int64), "noise")
    canvas = make_canvas(size=IMAGE_SIZE, crop_pct=1.0, interpolation="bilinear")
    split = Split("train", source, np.arange(num_images))
    return load_images(split, canvas=canvas, workers=0, memory_bytes=0)


def measure_memory(*, epochs: Sequence[int], jobs: Sequence[int]) -> dict[str, dict[int, Peak]]:
    """Peaks by size, of one run by its epochs, and of sweeps by their jobs."""
    peaks: dict[str, dict[int, Peak]] = {"epochs": {}, "jobs": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _watch(folder, "epochs=1")  # fills the cache, so that all others do the same
        for count in epochs:
            peaks["epochs"][count] = _watch(folder, f"epochs={count}")
        for count in jobs:
            lrs = ",".join(f"{lr:.4g}" for lr in np.geomspace(1e-4, 1e-1, count))
            peaks["jobs"][count] = _watch(folder, "-m", f"lr={lrs}", "epochs=2")
    return peaks


def _watch(folder: Path, *arguments: str) -> Peak:
    """One command, whose outputs are removed afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        place = f"hydra.{'sweep' if '-m' in arguments else 'run'}.dir={output}"
        settings = ("tracking=none", "backbone.image_size=32")
        with program(*arguments, *settings, place, cache=folder / "cache") as process:
            return peak_memory(process)


def show_curve(report: Report, curve: Curve) -> None:
    """Print one table."""
    report.say(f"\n{curve.factor:>10}{'seconds':>12}{'us each':>12}")
    for size, seconds in curve.seconds.items():
        report.say(f"{size:>10,}{seconds:>12.3f}{1e6 * seconds / size:>12.1f}")
    report.say(f"  exponent of the larger half {at_most(curve.exponent, BAR_OF_EXPONENT, unit='')}")


def show_memory(report: Report, factor: str, peaks: Mapping[int, Peak]) -> None:
    """Print one table of MiB and what they grow by."""
    report.say(f"\n{factor:>10}{'largest MiB':>14}{'together MiB':>14}")
    for count, peak in peaks.items():
        report.say(f"{count:>10,}{peak.largest:>14.0f}{peak.together:>14.0f}")
    smallest, largest = min(peaks), max(peaks)
    first, last = peaks[smallest], peaks[largest]
    what = f"{largest} : {smallest} {factor}"
    report.say(f"  largest process, {what} {at_most(last.largest / first.largest, BAR_OF_MEMORY)}")
    report.say(f"  all together, {what} {last.together / first.together:.2f}x")


def draw(curves: Mapping[str, Curve], memory: Mapping[str, Mapping[int, Peak]], path: Path) -> None:
    """One panel for each curve, and one for each kind of command that was watched."""
    num_panels = len(curves) + len(memory)
    columns = min(4, num_panels)
    rows = -(-num_panels // columns)
    figure = Figure(figsize=(4 * columns, 3.3 * rows), layout="constrained")
    panels = iter(figure.subplots(rows, columns, squeeze=False).flatten())
    for (title, curve), axes in zip(curves.items(), panels, strict=False):
        _draw_curve(axes, curve, title)
    for (factor, peaks), axes in zip(memory.items(), panels, strict=False):
        _draw_memory(axes, factor, peaks)
    for axes in panels:
        axes.axis("off")
    figure.savefig(path, dpi=120)
    print(f"saved {path}")


def _draw_curve(axes: Axes, curve: Curve, title: str) -> None:
    sizes, seconds = zip(*curve.seconds.items(), strict=True)
    axes.loglog(sizes, seconds, "o-", color="#0072B2", label=f"exponent {curve.exponent:.2f}")
    linear = [seconds[-1] * size / sizes[-1] for size in sizes]
    axes.loglog(sizes, linear, "--", color="0.6", label="linear")
    axes.set(title=title, xlabel=curve.factor, ylabel="seconds")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())  # labels between the powers of ten would lie on each other
    axes.legend()


def _draw_memory(axes: Axes, factor: str, peaks: Mapping[int, Peak]) -> None:
    counts = list(peaks)
    axes.semilogx(counts, [peak.largest for peak in peaks.values()], "o-", color="#D55E00", label="largest process")
    axes.semilogx(counts, [peak.together for peak in peaks.values()], "s-", color="#009E73", label="together")
    axes.set(title=f"memory by {factor}", xlabel=factor, ylabel="peak MiB")
    axes.set_ylim(0, 1.2 * max(peak.together for peak in peaks.values()))
    axes.legend()


def measure_curves(report: Report, device: torch.device, arguments: argparse.Namespace) -> dict[str, Curve]:
    """Measure and print what is asked for, by title."""
    curves: dict[str, Curve] = {}
    if "heads" in arguments.parts:
        report.say(f"\nhead training, one epoch; base: {Scale()}")
        for factor, sizes in FACTORS.items():
            curves[f"heads by {factor}"] = measure(
                factor,
                sizes,
                lambda size, factor=factor: head_training(replace(Scale(), **{factor: size}), device),
                rounds=arguments.rounds,
            )
            show_curve(report, curves[f"heads by {factor}"])
    if "extraction" in arguments.parts:
        report.say(f"\nfeature extraction, {IMAGE_SIZE} px, efficientnet_lite0, no cache")
        curves["extraction"] = measure("images", NUM_EXTRACTED, make_extraction(device), rounds=arguments.rounds)
        show_curve(report, curves["extraction"])
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3, help="of heads and extraction")
    parser.add_argument("--epochs", type=int, nargs="+", default=NUM_EPOCHS, help="of the runs that are watched")
    parser.add_argument("--jobs", type=int, nargs="+", default=NUM_JOBS, help="of the sweeps that are watched")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; memory is watched on auto")
    parser.add_argument("--plot", type=Path, help="where to write the figure")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/scaling_<device kind>.md")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # as a run does
    report = Report(f"Scaling, {arguments.rounds} round(s)", device=device, packages=("torch", "timm"))
    curves = measure_curves(report, device, arguments)
    memory: dict[str, dict[int, Peak]] = {}
    if "memory" in arguments.parts and not can_measure():
        report.say("\npeak memory: measured on Linux only")
    elif "memory" in arguments.parts:
        report.say("\npeak memory, digits, 32 px, tracking=none")
        memory = measure_memory(epochs=arguments.epochs, jobs=arguments.jobs)
        for factor, peaks in memory.items():
            show_memory(report, factor, peaks)
    if arguments.plot:
        draw(curves, memory, arguments.plot)
    if arguments.save:
        report.save("scaling")


if __name__ == "__main__":
    main()
