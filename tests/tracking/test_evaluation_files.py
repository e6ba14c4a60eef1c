"""What the test split showed is written whatever becomes of its images."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tl_experiments.data.folder import image_folder
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.transforms import make_canvas
from tl_experiments.tracking.evaluation_files import FILES, write_evaluation

NAMES = ("cat", "dog")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = np.random.default_rng(len(list(tmp_path.rglob("*")))).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def images_in(root: Path) -> Images:
    dataset = image_folder(
        root=str(root),
        train_size=None,
        val_fraction=0.1,
        test_fraction=0.1,
        split_seed=0,
        crop_pct=1.0,
        follow_links=False,
        on_bad_image="error",
    )
    canvas = make_canvas(size=8, crop_pct=1.0, interpolation="bilinear")
    return load_images(dataset.test, canvas=canvas, workers=0, memory_bytes=0)


def write(folder: Path, images: Images) -> np.ndarray:
    """Write that every image is a cat; returns the gallery's pixels."""
    folder.mkdir()
    logits = torch.tensor([[5.0, 0.0]]).expand(len(images), 2)
    paths = write_evaluation(
        folder, logits=logits, labels=images.labels, temperature=2.0, images=images, class_names=NAMES
    )
    assert [path.name for path in paths] == list(FILES)
    assert all(path.stat().st_size for path in paths)
    with Image.open(folder / "wrong_gallery.png") as gallery:
        return np.asarray(gallery.convert("RGB"))


def test_every_confidence_is_the_calibrated_one(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "run", images_in(root))
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open(encoding="utf-8")))
    assert {row["confidence"] for row in rows} == {f"{1 / (1 + math.exp(-5 / 2)):.4f}"}


def test_images_that_are_gone_cost_their_pictures_alone(root: Path, tmp_path: Path) -> None:
    images = images_in(root)
    whole = write(tmp_path / "before", images)
    (root / "test" / "dog" / "0.png").unlink()
    grey = write(tmp_path / "after", images)
    assert whole.shape == grey.shape
    changed = np.nonzero((whole != grey).any(axis=(0, 2)))[0]
    assert 0 < np.ptp(changed) < whole.shape[1] / 3, "one tile of three"
    before, after = (
        list(csv.reader((tmp_path / when / "predictions.csv").open(encoding="utf-8"))) for when in ("before", "after")
    )
    assert before == after
    assert len(before) == 1 + 6
