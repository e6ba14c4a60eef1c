"""Shards as the program packs them and as others write them."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from webdataset.writer import TarWriter

from tl_experiments.data.packing import Packed, Packing, pack
from tl_experiments.data.source import Dataset
from tl_experiments.data.tar_dataset import webdataset
from tl_experiments.data.watch import UNWATCHED, Watch

OPTIONS: dict[str, Any] = {
    "shuffle_buffer": 20,
    "train_size": None,
    "val_fraction": 0.25,
    "test_fraction": 0.2,
    "split_seed": 0,
    "crop_pct": None,
    "on_bad_image": "error",
}


def packed(root: Path, output: Path, *, num_shards: int = 3, watch: Watch = UNWATCHED, **options: Any) -> Packed:
    """Pack a folder or a table; the options are those of `Packing`."""
    plain = {"seed": 0, "follow_links": False, "skip_bad": False, "workers": 0}
    return pack(str(root), output, Packing(num_shards=num_shards, **{**plain, **options}), watch=watch)


def shards(root: Path | str, *, watch: Watch = UNWATCHED, **options: Any) -> Dataset:
    """Open shards; the options are those of `webdataset`."""
    return webdataset(root=str(root), watch=watch, **{**OPTIONS, **options})


def write_shard(path: Path, samples: Iterable[dict[str, Any]]) -> Path:
    """Write a shard as WebDataset does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, TarWriter(file, encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def samples(first: int, count: int, *, classes: Iterable[str] = ("0", "1")) -> list[dict[str, Any]]:
    """Return samples whose images tell their number, of classes that take turns."""
    names = list(classes)
    return [
        {"__key__": f"{number:04d}", "png": image(number), "cls": names[number % len(names)].encode()}
        for number in range(first, first + count)
    ]


def image(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 8), (number % 256, number // 256, 100)).save(file, "PNG")
    return file.getvalue()
