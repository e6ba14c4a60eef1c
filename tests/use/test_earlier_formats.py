"""Models that earlier versions of the program have left are read, and say what they said then."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tl_experiments.build import build_classifier
from tl_experiments.data.digits import digits
from tl_experiments.data.transforms import draw
from tl_experiments.inference.description import FORMAT, Description

STORED = {2: Path(__file__).parent / "run_of_format_2"}  # folders as those versions wrote them; none is written again


def test_the_format_of_today_is_written_by_this_version_alone() -> None:
    """Who raises FORMAT stores a run of the one before here."""
    assert FORMAT - 1 in STORED


@pytest.mark.parametrize("number", STORED)
def test_a_stored_run_says_of_its_test_images_what_it_said(number: int) -> None:
    run = STORED[number]
    assert json.loads((run / "model" / "model.json").read_text())["format"] == number
    test = digits(train_size=None, val_fraction=0.1, split_seed=0, image_size=32, crop_pct=1.0).test
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [test.source.name(int(index)) for index in test.indices]
    with build_classifier(run / "model", device="cpu") as classifier:
        canvas, names = classifier.description.canvas, classifier.description.class_names
        drawn = [draw(test.source.image(int(index)), canvas) for index in test.indices]
        confidence, labels = classifier.probabilities(torch.from_numpy(np.stack(drawn))).max(dim=1)
    assert [names[label] for label in labels] == [row["predicted"] for row in rows]
    assert np.abs(confidence.numpy() - [float(row["confidence"]) for row in rows]).max() < 1e-3


def test_format_1_knew_linear_heads_alone_and_no_temperature(tmp_path: Path) -> None:
    said: dict[str, Any] = json.loads((STORED[2] / "model" / "model.json").read_text())
    for key in ("head", "tta", "temperature"):
        del said[key]
    (tmp_path / "model.json").write_text(json.dumps(said | {"format": 1}))
    description = Description.load(tmp_path)
    assert description.head == {"_target_": "tl_experiments.models.head_kinds.Linear", "dropout": 0.0}
    assert (description.temperature, description.mirrors) == (1.0, False)
