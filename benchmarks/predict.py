"""Measure `tlx predict` on many files: images/s as ratios to decoding alone and to the bare network, and its memory.

    python benchmarks/predict.py --images FOLDER --model RUN           60,000 files of the folder, repeated if need be
    python benchmarks/predict.py --images FOLDER --model RUN --save    the same, and writes it to benchmarks/results/

What is compared takes turns within a round, in one process, so that a busy machine slows all alike; the median round
counts. `predict` is the whole command: it loads the model, lists the files from a table, decodes, classifies, writes
and joins the output. `decode` reads, decodes and draws the same files with as many workers, and nothing else goes on.
`forward` is the network on batches that are on its device already. On a CPU these two share the cores, so that predict
can reach but the speed of both in turn, 1 / (1/decode + 1/forward), which is the third ratio; a GPU does not share.

Memory is that of the process and its workers while predict works, each page that several share counted once (PSS);
Linux only. It is flat if its peak is reached in the first tenth of the time.
"""

import argparse
import csv
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path

import rich.console
import torch
from peak_memory import can_measure, family
from report import Report, at_most

from tl_experiments.data.loading import load
from tl_experiments.inference.drawing import DrawFile, DrawItems
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import list_images
from tl_experiments.inference.streaming import CHUNK
from tl_experiments.runtime.process import choose_device
from tl_experiments.tracking.console import Console
from tl_experiments.use.model_options import ModelOptions
from tl_experiments.use.predict import Wanted, predict

LOOK_SECONDS = 0.1
SHARES = (0.1, 0.5, 1.0)  # of the time, up to which memory's peak is told
MEMORY_BAR = 1.1


def write_table(folder: Path, images: Path, count: int) -> Path:
    """List so many files, repeated if there are fewer, in a table as a user would."""
    names = [str(Path(listed.path).absolute()) for listed in list_images(str(images))]
    path = folder / "images.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image_path"], *([name] for name in islice(cycle(names), count))])
    return path


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decode_all(table: Path, classifier: Classifier, *, workers: int) -> None:
    """Draw every image as predict does, and drop it."""
    items, canvas = list_images(str(table)), classifier.description.canvas
    chunks = iter(lambda: list(islice(items, CHUNK)), [])
    for _ in load(DrawItems(DrawFile(canvas), canvas), chunks, workers=workers):
        pass


@torch.inference_mode()
def forward_all(classifier: Classifier, count: int) -> None:
    """Classify so many images that are on the device."""
    size, device = classifier.description.canvas.size, classifier.compute.device
    canvases = torch.randint(0, 256, (classifier.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    with classifier.compute.infer.autocast():
        for _ in range(-(-count // classifier.batch_size)):
            classifier.network(canvases)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def memory_watched() -> Iterator[list[tuple[float, float]]]:
    """Yield a list that fills with (seconds, MiB of this process and its children) while the block lasts."""
    seen, ended, start = list[tuple[float, float]](), threading.Event(), time.perf_counter()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            seen.append((time.perf_counter() - start, sum(map(_own_memory, family(os.getpid())))))

    thread = threading.Thread(target=look)
    if can_measure():
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def _own_memory(pid: int) -> float:
    """MiB, of shared pages its share; 0 of a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def show(report: Report, seconds: dict[str, list[float]], count: int, *, shares_cores: bool) -> None:
    """Print images/s and the ratios, the median of the rounds and their span."""
    speeds = {name: [count / took for took in values] for name, values in seconds.items()}
    for name, values in speeds.items():
        report.say(f"{name:10}{statistics.median(values):>10,.0f} images/s")
    both = [1 / (1 / decode + 1 / forward) for decode, forward in zip(speeds["decode"], speeds["forward"], strict=True)]
    others = {
        "decode": speeds["decode"],
        "forward": speeds["forward"],
        **({"both in turn": both} if shares_cores else {}),
    }
    report.say()
    for name, values in others.items():
        ratios = [own / other for own, other in zip(speeds["predict"], values, strict=True)]
        report.say(f"predict to {name:14}{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")


def show_memory(report: Report, seen: list[tuple[float, float]]) -> None:
    """Print the peak of memory up to some shares of the time."""
    if not seen:
        report.say("\nmemory: not measured on this system")
        return
    end = seen[-1][0]
    peaks = [max(used for at, used in seen if at <= max(share * end, seen[0][0])) for share in SHARES]
    told = ", ".join(f"{peak:,.0f} MiB in {share:.0%}" for share, peak in zip(SHARES, peaks, strict=True))
    report.say(f"\npeak memory of predict and its workers by time: {told}")
    report.say(f"last to first {at_most(peaks[-1] / peaks[0], MEMORY_BAR)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="of image files")
    parser.add_argument("--model", required=True, metavar="RUN", help="as of tlx predict")
    parser.add_argument("--num", type=int, default=60_000, help="images; files are repeated if there are fewer")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or auto")
    parser.add_argument("--workers", type=int, help="default: one for each core")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/predict_<device kind>.md")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    options = ModelOptions(
        run=arguments.model, device=arguments.device, precision=arguments.precision, workers=arguments.workers
    )
    report = Report(f"Predict: {arguments.num:,} image files", device=device, packages=("torch", "pillow", "pyarrow"))
    silent = Console(console=rich.console.Console(file=io.StringIO()))
    seconds: dict[str, list[float]] = {"predict": [], "decode": [], "forward": []}
    with tempfile.TemporaryDirectory() as temporary, options.classifier(options.folder()) as classifier:
        table = write_table(Path(temporary), arguments.images, arguments.num)
        wanted = Wanted(output=Path(temporary) / "predictions.csv", overwrite=True)
        what = (
            f"{classifier.description.backbone['name']}, {classifier.network.crop} px, {classifier.compute.infer.name}"
        )
        report.say(f"{what}, batches of {classifier.batch_size}, {options.num_workers} workers\n")
        for _ in range(arguments.rounds):
            with memory_watched() as seen:
                seconds["predict"].append(timed(lambda: predict(options, str(table), wanted, console=silent)))
            seconds["decode"].append(timed(lambda: decode_all(table, classifier, workers=options.num_workers)))
            seconds["forward"].append(timed(lambda: forward_all(classifier, arguments.num)))
    show(report, seconds, arguments.num, shares_cores=device.type == "cpu")
    show_memory(report, seen)
    if arguments.save:
        report.save("predict")


if __name__ == "__main__":
    main()
