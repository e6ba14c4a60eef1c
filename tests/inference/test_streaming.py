"""Images go through the network in their order, as many as there are, and what is bad among them harms no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.digit_files import MODEL, write_digits
from tl_experiments.build import build_classifier
from tl_experiments.inference.drawing import DrawFile, DrawItems
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import Listed
from tl_experiments.inference.streaming import classify

NUM = 43  # no multiple of a batch


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Listed]:
    root = tmp_path_factory.mktemp("digits")
    return [Listed(name, str(root / name)) for name in write_digits(root, NUM)]


@pytest.fixture
def classifier() -> Iterator[Classifier]:
    with build_classifier(MODEL, device="cpu", batch_size=10) as built:
        yield built


def drawn(classifier: Classifier) -> DrawItems[Listed]:
    canvas = classifier.description.canvas
    return DrawItems(DrawFile(canvas), canvas)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_answered_as_if_it_came_alone(workers: int, classifier: Classifier, items: list[Listed]) -> None:
    draw = drawn(classifier)
    answers = list(classify(classifier, draw, iter(items), workers=workers))
    assert [len(answered.items) for answered in answers] == [10, 10, 10, 10, 3]
    assert [item for answered in answers for item in answered.items] == items
    values = torch.cat([answered.values for answered in answers])
    alone = torch.cat([classifier.probabilities(draw([item]).canvases) for item in items])
    torch.testing.assert_close(values, alone, rtol=0, atol=1e-6)  # its place in a batch may round otherwise


def test_a_bad_image_is_told_of_in_its_place(classifier: Classifier, items: list[Listed], tmp_path: Path) -> None:
    whole = list(classify(classifier, drawn(classifier), items, workers=0))
    (tmp_path / "bad.png").write_bytes(b"no image")
    spoilt = [*items[:7], Listed("bad.png", str(tmp_path / "bad.png")), *items[7:], Listed("gone.png", "gone.png")]
    answers = list(classify(classifier, drawn(classifier), spoilt, workers=0))
    faults = {
        item.name: fault for answered in answers for item, fault in zip(answered.items, answered.faults, strict=True)
    }
    assert {name for name, fault in faults.items() if fault} == {"bad.png", "gone.png"}
    values, expected = (torch.cat([answered.values for answered in found]) for found in (answers, whole))
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


def test_logits_are_given_on_request(classifier: Classifier, items: list[Listed]) -> None:
    draw = drawn(classifier)
    [answered] = classify(classifier, draw, items[:5], workers=0, logits=True)
    assert torch.equal(answered.values, classifier.logits(draw(items[:5]).canvases))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_taken_when_they_are_wanted(workers: int, classifier: Classifier, items: list[Listed]) -> None:
    taken = 0

    def endless() -> Iterator[Listed]:
        nonlocal taken
        while True:
            taken += 1
            yield items[0]

    answers = classify(classifier, drawn(classifier), endless(), workers=workers)
    next(answers)
    assert taken <= 10 * (2 + 3 * workers), "two batches of the device, and two that wait for each worker"
    answers.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_in_order_too(items: list[Listed]) -> None:
    with build_classifier(MODEL, device="cuda", batch_size=10) as there, build_classifier(MODEL, device="cpu") as here:
        answers = [answered.values for answered in classify(there, drawn(there), items, workers=2)]
        expected = here.probabilities(drawn(here)(items).canvases)
    torch.testing.assert_close(torch.cat(answers), expected, rtol=0, atol=1e-3)
