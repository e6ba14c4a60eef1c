"""What is said of an image: calibrated probabilities, whatever images come with it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tl_experiments.build import build_classifier
from tl_experiments.inference.image_classifier import Classifier, ImageClassifier
from tl_experiments.runtime import precision
from tl_experiments.runtime.precision import MEMORY_FORMATS, PRECISIONS

MODEL = Path(__file__).parents[1] / "use" / "run_of_format_2" / "model"


@pytest.fixture
def classifier() -> Iterator[Classifier]:
    with build_classifier(MODEL, device="cpu", batch_size=4) as built:
        yield built


@pytest.fixture
def canvases() -> torch.Tensor:
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_neither_order_nor_company_changes_a_bit(classifier: Classifier, canvases: torch.Tensor) -> None:
    whole = classifier.probabilities(canvases)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    assert torch.equal(classifier.probabilities(canvases[order]), whole[order])
    assert torch.equal(classifier.probabilities(canvases[3:4]), whole[3:4])
    assert classifier.probabilities(canvases[:0]).shape == (0, 10)


@pytest.mark.parametrize("fastest", ["bf16", "fp32"])
def test_auto_is_the_fastest_precision_that_was_measured(fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {f"{name}/{layout}": 1.0 + (name == fastest) for name in PRECISIONS for layout in MEMORY_FORMATS}
    rows = {"cpu": {"*": [{"image_size": 32, "train": speeds, "infer": speeds}]}}
    monkeypatch.setattr(precision, "table", lambda: rows)
    with build_classifier(MODEL, device="cpu", precision="auto") as built:
        assert built.compute.infer.name == fastest


def test_probabilities_are_the_softmax_of_logits_over_the_temperature(
    classifier: Classifier, canvases: torch.Tensor
) -> None:
    expected = (classifier.logits(canvases) / classifier.description.temperature).softmax(dim=1)
    assert classifier.description.temperature != 1
    torch.testing.assert_close(classifier.probabilities(canvases), expected)


def test_a_mirror_image_gets_the_same_answer_where_both_are_looked_at(
    classifier: Classifier, canvases: torch.Tensor
) -> None:
    description = replace(classifier.description, mirrors=True)
    network = ImageClassifier(classifier.network.model, description=description)
    both = replace(classifier, description=description, network=network)
    torch.testing.assert_close(both.probabilities(canvases), both.probabilities(canvases.flip(-1)))
    one, other = (classifier.logits(images).softmax(dim=1) for images in (canvases, canvases.flip(-1)))
    assert not torch.allclose(one, other, atol=1e-3)
    torch.testing.assert_close(both.logits(canvases).exp(), (one + other) / 2)
