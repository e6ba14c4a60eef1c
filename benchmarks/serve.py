"""Measure `tlx serve` under load on this machine: requests/s and waiting times, as ratios to the bare network.

    python benchmarks/serve.py --images FOLDER --model RUN           of the folder's image files, some at random
    python benchmarks/serve.py --images FOLDER --model RUN --save    the same, and writes it to benchmarks/results/

The service is a process of its own, as a user starts it. Clients post one image file a request and wait for the answer
before they send the next one, each over a connection that it keeps. What it is compared with is measured in this
process while the service idles, in turns within a round; the median round counts.

forward    the network on batches that are on its device already, as many images at once as suit the device, and one
decode     one file after the other is decoded and drawn, in one thread
HTTP       requests/s of GET /health from as many clients, which is what the service costs without images

On a CPU all of them, and the clients, share the cores: at best they do their work in turn, which is the last ratio.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from report import Report
from serve_load import Load, Service, service

from tl_experiments.data.decoding import decode
from tl_experiments.data.transforms import draw
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import list_images
from tl_experiments.runtime.process import choose_device
from tl_experiments.use.model_options import ModelOptions

NUM_FILES = 200  # that are posted, in turn


@dataclass
class Measured:
    """What came out, round by round.

    Attributes:
        bare: by what was measured, in images/s or requests/s.
        loads: by number of clients.
        batch_sizes: of the network's batches, their mean, by number of clients.
    """

    bare: dict[str, list[float]] = field(default_factory=dict)
    loads: dict[int, list[Load]] = field(default_factory=dict)
    batch_sizes: dict[int, list[float]] = field(default_factory=dict)


def read_files(folder: Path) -> list[bytes]:
    """Some of the images of a folder, the same each time."""
    paths = [listed.path for listed in list_images(str(folder))]
    random.Random(0).shuffle(paths)
    return [Path(path).read_bytes() for path in paths[:NUM_FILES]]


@torch.inference_mode()
def forward(classifier: Classifier, count: int, *, seconds: float) -> float:
    """Images/s of the network on a batch that is on its device."""
    side, device = classifier.description.canvas.size, classifier.compute.device
    canvases = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=device)
    with classifier.compute.infer.autocast():
        return count * times_per_second(lambda: classifier.network(canvases).cpu(), seconds=seconds)


def decoding(classifier: Classifier, files: Sequence[bytes], *, seconds: float) -> float:
    """Images/s of one thread."""
    turn, canvas = itertools.cycle(files), classifier.description.canvas
    return times_per_second(lambda: draw(decode(next(turn), name="x"), canvas), seconds=seconds)


def times_per_second(work: Callable[[], object], *, seconds: float) -> float:
    """How often something can be done, after once that warms up."""
    work()
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds or not count:
        work()
        count += 1
    return count / (time.perf_counter() - start)


def measure(
    running: Service,
    classifier: Classifier,
    files: Sequence[bytes],
    measured: Measured,
    *,
    arguments: argparse.Namespace,
) -> None:
    """Add a round."""
    seconds, batch = arguments.seconds, f"forward, {classifier.batch_size} at once"
    bare = {
        batch: forward(classifier, classifier.batch_size, seconds=seconds),
        "forward, one at a time": forward(classifier, 1, seconds=seconds),
        "decode, one thread": decoding(classifier, files, seconds=seconds),
        "HTTP without images": running.load(None, clients=max(arguments.clients), seconds=seconds).per_second,
    }
    for name, speed in bare.items():
        measured.bare.setdefault(name, []).append(speed)
    for clients in arguments.clients:
        images, batches = running.batches()
        measured.loads.setdefault(clients, []).append(running.load(files, clients=clients, seconds=seconds))
        more_images, more_batches = running.batches()
        measured.batch_sizes.setdefault(clients, []).append((more_images - images) / (more_batches - batches))


def show(report: Report, measured: Measured, *, shares_cores: bool) -> None:
    """Print medians of the rounds; ratios are those of each round."""
    for name, speeds in measured.bare.items():
        report.say(f"{name:24}{statistics.median(speeds):>10,.1f} /s")
    in_batches, alone, decoded, empty = measured.bare.values()
    report.say(f"\n{'clients':>7}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'images a batch':>16}  ratios")
    for clients, loads in measured.loads.items():
        speeds = [load.per_second for load in loads]
        in_turn = [1 / sum(1 / speed for speed in each) for each in zip(in_batches, decoded, empty, strict=True)]
        others = {"to forward at once": in_batches, "one at a time": alone}
        others |= {"all in turn": in_turn} if shares_cores else {}
        ratios = {
            name: statistics.median(own / other for own, other in zip(speeds, values, strict=True))
            for name, values in others.items()
        }
        p50, p99 = (statistics.median(load.percentile(share) for load in loads) for share in (50, 99))
        numbers = f"{clients:>7}{statistics.median(speeds):>12,.1f}{p50:>9.1f}{p99:>9.1f}"
        told = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
        report.say(f"{numbers}{statistics.median(measured.batch_sizes[clients]):>16.1f}  {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="of image files")
    parser.add_argument("--model", required=True, metavar="RUN", help="as of tlx serve")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--max-wait-ms", type=float, nargs="+", default=[0, 5], help="as of tlx serve; one after another"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or auto")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/serve_<device kind>.md")
    arguments = parser.parse_args()

    device, files = choose_device(arguments.device), read_files(arguments.images)
    options = ModelOptions(run=arguments.model, device=arguments.device, precision=arguments.precision)
    report = Report("Serve: one image a request", device=device, packages=("torch", "pillow", "fastapi", "uvicorn"))
    with options.classifier(options.folder()) as classifier:
        what = (
            f"{classifier.description.backbone['name']}, {classifier.network.crop} px, {classifier.compute.infer.name}"
        )
        size = statistics.mean(map(len, files)) / 1e3
        report.say(f"{what}; {len(files)} files of {size:.0f} kB on average; median of {arguments.rounds} round(s)")
        for wait in arguments.max_wait_ms:
            report.say(f"\n--max-wait-ms {wait:g}\n")
            measured = Measured()
            typed = ("--device", arguments.device, "--precision", arguments.precision, "--max-wait-ms", str(wait))
            with service(arguments.model, *typed) as running:
                for _ in range(arguments.rounds):
                    measure(running, classifier, files, measured, arguments=arguments)
            show(report, measured, shares_cores=device.type == "cpu")
    if arguments.save:
        report.save("serve")


if __name__ == "__main__":
    main()
