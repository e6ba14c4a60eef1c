"""Runs on tables and on a dataset of Hugging Face: killed, gone on with when the images have moved, and reproduced."""

import csv
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.commands import SMALL
from tests.faults.processes import STEPS, Strike, server
from tl_experiments.verify.reproduce import reproduce
from tl_experiments.verify.verdict import Word

TINY = (
    *("strategy=finetune", "augmentation=light", "epochs=2", "batch_size=8", "tracking=none"),
    *(
        "runtime.device=cpu",
        "runtime.threads=1",
        "runtime.workers=2",
        "runtime.image_memory_gb=0",
        "runtime.cache=false",
    ),
)
STEPS_OF_EPOCH = 4  # 29 images are left to train on


def write_images(folder: Path) -> list[tuple[Path, str]]:
    """Write 40 images of two classes; returns their paths and classes."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(40):
        label = "cd"[index % 2]
        path = folder / label / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 200 + 50 * (index % 2), (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        rows.append((path, label))
    return rows


def write_csv(folder: Path) -> Path:
    rows = [(path.relative_to(folder), label) for path, label in write_images(folder)]
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", "label"), *rows])
    return folder / "t.csv"


def write_parquet(folder: Path) -> Path:
    contents, labels = zip(*((path.read_bytes(), label) for path, label in write_images(folder)), strict=True)
    pq.write_table(pa.table({"image": contents, "label": labels}), folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


def write_hf(folder: Path) -> Path:
    rows = [({"bytes": path.read_bytes(), "path": None}, "cd".index(label)) for path, label in write_images(folder)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["c", "d"])})
    columns = dict(zip(features, map(list, zip(*rows, strict=True)), strict=True))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "write"), [("csv", write_csv), ("parquet", write_parquet), ("hf", write_hf)])
def test_a_killed_run_goes_on_where_its_images_are_now_and_is_reproduced(
    kind: str, write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk, images = tmp_path / "desk", tmp_path / "desk" / "images"
    root = write(images).relative_to(desk)
    typed = (*SMALL, "backbone.image_size=32", *TINY, f"dataset={kind}", f"dataset.root={root}", "hydra.run.dir=run")
    program = server().start(*typed, cwd=desk, strike=Strike("train 2 2"))
    assert program.wait() == -9, program.output
    moved = images.rename(tmp_path / "moved") / root.name
    again = server().start(f"resume={desk / 'run'}", f"dataset.root={moved}", cwd=desk)
    assert again.wait() == 0, again.output
    assert len((desk / STEPS).read_text().splitlines()) < 3 * STEPS_OF_EPOCH, "the first epoch was not done again"
    assert reproduce(str(desk / "run"), changes=[f"dataset.root={moved}"]).word is Word.IDENTICAL
