"""Measure dataset=webdataset on many images: memory, images/s against dataset=image_folder, an epoch gone on with.

    python benchmarks/shards.py                200,000 generated images, and a tenth of them
    python benchmarks/shards.py --save         the same, and writes it to benchmarks/results/

Images are generated, as small as CIFAR's, so that reading counts and not decoding alone, and packed by `tlx pack`. Then

- memory: a run of one epoch (a tiny network, no decoded image kept) on all and on a tenth of the images, each in a
  process of its own; the peak of its resident memory, pages of the index included;
- images/s: a shuffled epoch of decoded batches from the shards and from the folder, the same images, neither kept, in
  turns within a round; `cold` after the pages of all these files were given back to the system, which is as near to a
  disk as a program comes without privileges (names of files stay known);
- start: what passes before the first batch, in which a folder is listed, read and checked;
- an epoch that is stopped in its middle and gone on with by a new reader: how often each image is read.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peak_memory import can_measure, peak_memory
from PIL import Image
from report import Report, at_most, verdict

from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.dataset_images import load_dataset_images
from tl_experiments.data.folder import image_folder
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.packing import Packing, pack
from tl_experiments.data.sampling import shuffled
from tl_experiments.data.shard_order import ByShards
from tl_experiments.data.source import Dataset, ImageSource, Known, Split
from tl_experiments.data.tar_dataset import webdataset
from tl_experiments.data.transforms import Normalise, make_canvas
from tl_experiments.data.watch import UNWATCHED

ROOT = Path(__file__).parent.parent
SIDE, CLASSES = 32, 10
BATCH, BUFFER = 64, 10_000
MEMORY_BAR, SPEED_BAR = 1.2, 1.0
OPTIONS = {
    "train_size": None, "val_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0, "crop_pct": 1.0,
    "on_bad_image": "error",
}  # fmt: skip


def write_images(root: Path, count: int) -> None:
    """Write so many different JPEGs, and a hundredth of them for val and for test each."""
    rng = np.random.default_rng(0)
    few = max(count // 100, CLASSES)
    for split, images in (("train", count), ("val", few), ("test", few)):
        folders = [root / split / f"class{label}" for label in range(CLASSES)]
        for folder in folders:
            folder.mkdir(parents=True)
        for index in range(images):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(
                folders[index % CLASSES] / f"{index:07d}.jpg", quality=90
            )


def packed(root: Path, shards: Path, *, num_shards: int, workers: int) -> float:
    """Pack a folder; returns the seconds."""
    packing = Packing(num_shards=num_shards, seed=0, follow_links=False, skip_bad=False, workers=workers)
    return timed(lambda: pack(str(root), shards, packing, watch=UNWATCHED))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def of_folder(root: Path) -> Dataset:
    return image_folder(root=str(root), follow_links=False, **OPTIONS)


def of_shards(root: Path) -> Dataset:
    return webdataset(root=str(root), shuffle_buffer=BUFFER, watch=UNWATCHED, **OPTIONS)


def opened(dataset: Dataset, *, workers: int) -> Images:
    """Do what a run does before its first batch; no decoded image is kept."""
    canvas = make_canvas(size=SIDE, crop_pct=1.0, interpolation="bilinear")
    loaded = load_dataset_images(
        dataset, canvas=canvas, workers=workers, memory_bytes=0, store=None, checks=None, watch=UNWATCHED
    )
    return loaded.train


def batches(images: Images) -> ImageBatches:
    sampler = shuffled if images.shards is None else ByShards(shuffled, shards=images.shards, buffer=BUFFER)
    normalise, device = Normalise((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), torch.device("cpu")
    return ImageBatches(
        images=images, size=SIDE, normalise=normalise, batch_size=BATCH, device=device, seed=0, sampler=sampler
    )


def read_epoch(images: Images, epoch: int) -> None:
    for _ in batches(images).epoch(epoch):
        pass


def forget_pages(folder: Path) -> None:
    """Give the pages of all files of a folder back to the system."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def peak_of_run(shards: Path, folder: Path) -> float:
    """MiB of a run of one epoch in a process of its own."""
    options = (
        *("backbone=timm", "backbone.name=test_resnet", "backbone.weights=null", f"backbone.image_size={SIDE}"),
        *("strategy=finetune", "scheduler=constant", "epochs=1", "batch_size=256", "tracking=none"),
        *("runtime=cpu", "runtime.image_memory_gb=0", "runtime.cache=false"),
    )
    where = ("dataset=webdataset", f"dataset.root={shards}", f"hydra.run.dir={folder}")
    command = [sys.executable, str(ROOT / "run.py"), *options, *where]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = peak_memory(process)
    if process.returncode:
        raise SystemExit(f"the run on {shards} ended with {process.returncode}")
    return peak.largest


@dataclass(frozen=True)
class Counting:
    """Another source, and how often each image was read."""

    source: ImageSource
    read: Counter[int] = field(default_factory=Counter)

    @property
    def labels(self) -> np.ndarray:
        return self.source.labels

    @property
    def known(self) -> Known | None:
        return self.source.known

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        self.read[index] += 1
        return self.source.content(index)

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return self.source.image_from(index, content)

    def name(self, index: int) -> str:
        return self.source.name(index)


def read_in_two_parts(shards: Path) -> Iterator[tuple[str, int]]:
    """Yield what was read of an epoch that is stopped in its middle, and when another reader went on."""
    canvas, read = make_canvas(size=SIDE, crop_pct=1.0, interpolation="bilinear"), Counter[int]()
    stop = 0
    for part in ("first", "second"):
        train = of_shards(shards).train
        counted = Split(train.name, Counting(train.source, read), train.indices)
        reader = batches(load_images(counted, canvas=canvas, workers=0, memory_bytes=0))
        before, stop = sum(read.values()), len(reader) // 2 if part == "first" else 0
        for number, _ in enumerate(reader.epoch(1, skip=0 if part == "first" else len(reader) // 2), start=1):
            if number == stop:
                break
        yield f"{part} part", sum(read.values()) - before
    yield "read once", sum(times == 1 for times in read.values())
    yield "read twice or more", sum(times > 1 for times in read.values())
    yield "never read", len(of_shards(shards).train) - len(read)


def show_speed(report: Report, seconds: dict[str, list[float]], count: int, *, told: str) -> None:
    speeds = {name: count / statistics.median(took) for name, took in seconds.items()}
    ratios = [folder / shards for folder, shards in zip(seconds["folder"], seconds["shards"], strict=True)]
    report.say(f"{told}: shards {speeds['shards']:,.0f}, folder {speeds['folder']:,.0f} images/s")
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    report.say(f"  shards to folder {verdict(statistics.median(ratios), SPEED_BAR)} ({span})")


def compare_speed(report: Report, root: Path, shards: Path, *, count: int, workers: int, rounds: int) -> None:
    seconds: dict[str, float] = {}
    images: dict[str, Images] = {}
    for name, dataset in (("shards", lambda: of_shards(shards)), ("folder", lambda: of_folder(root))):
        start = time.perf_counter()
        images[name] = opened(dataset(), workers=workers)
        seconds[name] = time.perf_counter() - start
    report.say(f"start: shards {seconds['shards']:.1f} s, folder {seconds['folder']:.1f} s")
    for told in ("warm", "cold"):
        took: dict[str, list[float]] = {"shards": [], "folder": []}
        for epoch in range(1, rounds + 1):
            for name, place in (("shards", shards), ("folder", root)):
                if told == "cold":
                    forget_pages(place)
                took[name].append(timed(lambda name=name, epoch=epoch: read_epoch(images[name], epoch)))
        show_speed(report, took, count, told=told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=200_000, help="images of train")
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    parser.add_argument("--folder", type=Path, help="where images are generated; default: the temporary folder")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/shards_<device kind>.md")
    arguments = parser.parse_args()

    report = Report(
        f"Shards: {arguments.num:,} images", device=torch.device("cpu"), packages=("torch", "pillow", "pyarrow")
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        os.environ["TL_CACHE_DIR"] = str(Path(temporary) / "cache")
        peaks = []
        for count in (arguments.num // 10, arguments.num):
            root, shards = Path(temporary) / f"images-{count}", Path(temporary) / f"shards-{count}"
            write_images(root, count)
            took = packed(root, shards, num_shards=arguments.shards, workers=arguments.workers)
            report.say(
                f"packed {count:,} images in {took:.1f} s, index of {(shards / 'index.arrow').stat().st_size:,} bytes"
            )
            if can_measure():
                peaks.append(peak_of_run(shards, Path(temporary) / f"run-{count}"))
        if peaks:
            report.say(f"\npeak memory of a run: {peaks[0]:,.0f} MiB with a tenth, {peaks[1]:,.0f} MiB with all")
            each = (peaks[1] - peaks[0]) * 2**20 / (0.9 * arguments.num)
            report.say(f"  all to a tenth {at_most(peaks[1] / peaks[0], MEMORY_BAR)}; {each:,.0f} bytes for each image")
        told = ", ".join(f"{what} {number:,}" for what, number in read_in_two_parts(shards))
        report.say(f"an epoch in two parts: {told}\n")
        compare_speed(report, root, shards, count=arguments.num, workers=arguments.workers, rounds=arguments.rounds)
    if arguments.save:
        report.save("shards")


if __name__ == "__main__":
    main()
