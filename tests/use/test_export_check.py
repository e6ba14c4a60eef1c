"""What a check of an export sees, and what it lets pass."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.digit_files import MODEL, write_digits
from tl_experiments.build import build_classifier
from tl_experiments.inference.export_graph import DrawingClassifier
from tl_experiments.inference.image_classifier import ImageClassifier
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.use.export_check import Check, check
from tl_experiments.use.sample_images import Samples, read_samples


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageClassifier, Samples, torch.nn.Module]:
    """A classifier, an image of its canvas's size, and the graph that draws for itself."""
    folder = tmp_path_factory.mktemp("images")
    [written] = write_digits(folder, 1)
    with build_classifier(MODEL, device="cpu") as built:
        network, description = built.network, built.description
    side = description.canvas.size
    Image.open(folder / written).resize((side, side)).save(folder / "whole.png")
    whole = DrawingClassifier(network, description.canvas).eval().requires_grad_(False)
    return network, read_samples(description, folder, source=str(folder / "whole.png")), whole


def checked(loaded: Any, network: Any, samples: Samples) -> Check:
    return check(loaded, network, samples, preprocess=True, on_progress=lambda *_: None)


def test_a_graph_that_resizes_wrongly_is_refused_though_the_images_need_no_resizing(
    model: tuple[ImageClassifier, Samples, torch.nn.Module],
) -> None:
    network, samples, whole = model
    side = samples.canvases.shape[-1]
    assert samples.sizes[: samples.num_images] == ((side, side),)

    def sound(images: np.ndarray) -> np.ndarray:
        return whole(torch.from_numpy(images)).numpy()

    found = checked(sound, network, samples)
    assert found.resized is not None
    assert found.resized.images == 3
    with pytest.raises(RunFailed, match="differs from the model on 3 images"):
        checked(
            lambda images: sound(images) if images.shape[1:3] == (side, side) else sound(images * 0), network, samples
        )


@pytest.mark.parametrize(("margin", "passes"), [(8e-5, True), (1.2e-4, False)])
def test_a_class_may_change_only_where_the_model_hardly_prefers_one(
    margin: float, passes: bool, model: tuple[ImageClassifier, Samples, torch.nn.Module]
) -> None:
    def says(count: int, first: float) -> torch.Tensor:
        return torch.tensor([[first, 1 - first]]).expand(count, 2)

    def network(canvases: torch.Tensor) -> torch.Tensor:
        return says(len(canvases), 0.5 + margin / 2)

    def loaded(images: np.ndarray) -> np.ndarray:
        return says(len(images), 0.5 - 1e-5).numpy()

    if passes:
        assert checked(loaded, network, model[1]).whole.top1_agreement == 1
    else:
        with pytest.raises(RunFailed, match="same class for 0"):
            checked(loaded, network, model[1])
