"""What is exported is what was tested: merged additions of LoRA, and averages of weights."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import SMALL
from tl_experiments.cli.verbs import main
from tl_experiments.config.member import Member
from tl_experiments.data.digits import digits
from tl_experiments.experiment import run_experiments

SMALL = (
    *SMALL,
    "backbone.image_size=32",
    *("dataset.train_size=20", "epochs=2", "lr=0.01"),
    *("runtime=cpu", "runtime.train_precision=fp32", "runtime.infer_precision=fp32"),
)
KINDS = {
    "lora": ("strategy=lora", "strategy.rank=2"),
    "ema": ("strategy=finetune", "ema_decay=0.9"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_says_of_the_test_images_what_the_run_said(
    kind: str, make_member: Callable[..., Member], tmp_path: Path
) -> None:
    member = make_member(*SMALL, *KINDS[kind])
    run_experiments([member])
    output = tmp_path / "model.pt2"
    arguments = ["export", str(member.folder), "--format", "pt2", "--preprocess", "--output", str(output)]
    assert main(arguments) == 0
    with (member.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = digits(train_size=20, val_fraction=0.1, split_seed=0, image_size=32, crop_pct=1.0).test
    assert [row["image"] for row in rows] == [test.source.name(int(index)) for index in test.indices]
    images = torch.from_numpy(np.stack([np.array(test.source.image(int(index))) for index in test.indices]))
    confidence, labels = torch.export.load(output).module()(images).max(dim=1)
    assert [str(int(label)) for label in labels] == [row["predicted"] for row in rows]
    assert np.abs(confidence.numpy() - [float(row["confidence"]) for row in rows]).max() < 1e-4
