"""Runs on shards: what they say is what runs on the folder say, image by image, and they repeat to the bit."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import compose_test_member
from tests.data.shards import packed
from tests.digit_files import write_digits
from tl_experiments.cli.verbs import main
from tl_experiments.experiment import run_experiments

TINY = (
    *("backbone=timm", "backbone.name=test_resnet", "backbone.weights=null", "backbone.image_size=32"),
    *("runtime=cpu", "runtime.threads=1", "epochs=1"),
)
COUNTS = {"train": 120, "val": 40, "test": 40}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of digits in three splits, and shards of them beside it."""
    folder = tmp_path_factory.mktemp("digits")
    for split, count in COUNTS.items():
        write_digits(folder / "images" / split, count)
    packed(folder / "images", folder / "shards")
    return folder


def run(folder: Path, digits: Path, *overrides: str, packed: bool) -> dict:
    data = ("webdataset", "shards") if packed else ("image_folder", "images")
    where = (f"dataset={data[0]}", f"dataset.root={digits / data[1]}")
    member = compose_test_member(folder, *TINY, *where, *overrides)
    [result] = run_experiments([member])
    assert result is not None
    return json.loads((folder / "result.json").read_text())


def predictions(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open() as file:
        return sorted(csv.reader(file))


def test_neighbours_answer_the_same_by_name(digits: Path, tmp_path: Path) -> None:
    of_folder = run(tmp_path / "folder", digits, "strategy=knn", packed=False)
    of_shards = run(tmp_path / "shards", digits, "strategy=knn", "runtime.image_memory_gb=0", packed=True)
    assert of_shards["test/acc"] == of_folder["test/acc"] > 0.5
    assert predictions(tmp_path / "shards") == predictions(tmp_path / "folder")
    assert predictions(tmp_path / "shards")[1][0] == "test/0/0.png"


def test_training_on_shards_repeats_whoever_reads_them(digits: Path, tmp_path: Path) -> None:
    plain = ("strategy=finetune", "augmentation=light", "dataset.shuffle_buffer=30", "runtime.cache=false")
    streamed = ("runtime.image_memory_gb=0", "runtime.workers=2")
    kept = run(tmp_path / "kept", digits, *plain, packed=True)
    read = run(tmp_path / "read", digits, *plain, *streamed, packed=True)
    assert read["weights_sha256"] == kept["weights_sha256"]
    other = run(tmp_path / "other", digits, *plain, "dataset.shuffle_buffer=1", packed=True)
    assert other["weights_sha256"] != kept["weights_sha256"]
    output = tmp_path / "said.csv"
    assert main(["predict", str(tmp_path / "kept"), str(digits / "images/test"), "--output", str(output)]) == 0
    assert len(output.read_text().splitlines()) == COUNTS["test"] + 1


def test_balanced_batches_come_from_shards_too(digits: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "run", digits, "strategy=finetune", "sampler=balanced", packed=True)
    assert found["status"] == "FINISHED"
