"""Images are drawn in an exported graph as Pillow draws them elsewhere."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from tl_experiments.data.transforms import Canvas, centre_crop, draw
from tl_experiments.inference.graph_drawing import GraphDrawing

PHOTO = Image.fromarray(load_sample_images().images[0])  # 640 x 427
OTHER_SIZES = [(640, 427), (240, 427), (333, 111), (97, 96), (30, 41), (400, 20), (1, 7), (1, 1)]


def both(size: tuple[int, int], canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    image = PHOTO.resize(size)
    expected = centre_crop(torch.from_numpy(draw(image, canvas))[None], canvas.crop)
    found = GraphDrawing(canvas)(torch.from_numpy(np.array(image))[None])
    return found.numpy(), expected.float().numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [96, 85, 64])
def test_any_size_is_drawn_as_pillow_draws_it_but_for_rounding(crop: int, interpolation: str) -> None:
    canvas = Canvas(size=96, crop=crop, interpolation=interpolation)
    for size in OTHER_SIZES:
        found, expected = both(size, canvas)
        assert found.shape == expected.shape == (1, 3, crop, crop)
        assert np.abs(found - expected).max() <= 1, size
        assert (found != expected).mean() < 0.01, size


def test_a_tall_image_is_drawn_nearly_so() -> None:
    """Pillow 13 passes columns first there."""
    found, expected = both((150, 427), Canvas(size=96, crop=85, interpolation="bicubic"))
    assert np.abs(found - expected).max() <= 2
    assert (found != expected).mean() < 0.25


@pytest.mark.parametrize("size", [(96, 96), (96, 131), (140, 96), (32, 32), (48, 64)])
def test_what_is_not_shrunk_is_the_same_to_the_last_bit(size: tuple[int, int]) -> None:
    found, expected = both(size, Canvas(size=96, crop=85, interpolation="bicubic"))
    assert np.array_equal(found, expected)
