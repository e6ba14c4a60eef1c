"""Canvas and crop give the pixels that torchvision's evaluation transform gives."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from tl_experiments.data.transforms import Canvas, Normalise, canvas_size, centre_crop, draw, make_canvas

SIZES = [(640, 427), (427, 640), (299, 300), (33, 32), (32, 47), (257, 256), (500, 501), (90, 31), (224, 224), (8, 8)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("crop", "resize", "interpolation"),
    [(224, 256, "bicubic"), (75, 86, "bilinear"), (64, 64, "bilinear"), (96, 109, "bicubic")],
)
@pytest.mark.parametrize("library", [v1, v2], ids=["v1", "v2"])
def test_the_centre_of_the_canvas_is_torchvisions_resize_and_centre_crop(
    make_photo, size, crop, resize, interpolation, library
):
    photo = make_photo(*size)
    canvas = make_canvas(size=crop, crop_pct=crop / resize, interpolation=interpolation)
    assert canvas.size == resize
    ours = centre_crop(torch.from_numpy(draw(photo, canvas)), crop)

    mode = InterpolationMode(
        "bilinear" if min(size) < resize else interpolation
    )  # small images are enlarged bilinearly
    reference = library.CenterCrop(crop)(library.Resize(resize, mode)(photo))
    theirs = torch.from_numpy(np.array(reference)).permute(2, 0, 1)
    assert torch.equal(ours, theirs)


def test_normalise_is_torchvisions():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = v2.Normalize(mean, std)(images.float() / 255)
    torch.testing.assert_close(Normalise(mean, std)(images), expected, rtol=0, atol=1e-6)
    assert Normalise(mean, std)(images).dtype == torch.float32


def test_a_crop_of_everything_needs_no_margin():
    assert canvas_size(64, 1.0) == 64
    assert canvas_size(224, 0.875) == 256
    assert canvas_size(224, 224 / 232) == 232


@pytest.mark.parametrize("size", [(1000, 100), (100, 1001)])
def test_the_middle_of_a_long_image_is_the_same_up_to_rounding(make_photo, size):
    photo, canvas = make_photo(*size), make_canvas(size=64, crop_pct=64 / 73, interpolation="bicubic")
    whole = photo.resize([int(73 * side / 100) for side in size], Image.Resampling.BICUBIC)
    theirs = torch.from_numpy(np.array(v1.CenterCrop(64)(whole))).permute(2, 0, 1)
    ours = centre_crop(torch.from_numpy(draw(photo, canvas)), 64)
    assert (ours.int() - theirs.int()).abs().max() <= 2


def test_a_line_costs_no_more_than_its_canvas():
    """Resized whole it would have 9 GB."""
    line = Image.new("RGB", (60_000, 1), (9, 8, 7))
    drawn = draw(line, Canvas(size=224, crop=224, interpolation="bilinear"))
    assert drawn.shape == (3, 224, 224)
    assert set(drawn[0].ravel()) == {9}


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="lanczos"):
        make_canvas(size=64, crop_pct=1.0, interpolation="lanczos")
