"""Canvas and crop give the pixels that torchvision's evaluation transform gives."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from tl_experiments.data.transforms import Canvas, Normalise, canvas_size, centre_crop, draw, make_canvas

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = Normalise(MEAN, STD)
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


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_batch_is_what_torchvisions_evaluation_transform_gives(make_photo, size):
    """Resize, CenterCrop, ToTensor and Normalize, to less than a step of the 255 before normalisation."""
    photo, canvas = make_photo(*size), make_canvas(size=75, crop_pct=75 / 86, interpolation="bilinear")
    ours = NORMALISE(centre_crop(torch.from_numpy(draw(photo, canvas))[None], 75))[0]
    theirs = v1.Compose([v1.Resize(86), v1.CenterCrop(75), v1.ToTensor(), v1.Normalize(MEAN, STD)])(photo)
    std = torch.tensor(STD).view(3, 1, 1)
    assert ((ours - theirs) * std).abs().max() < 0.5 / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0, 0, 0), (1, 1, 1))])
def test_normalise_is_the_formula_for_every_value(mean, std, memory_format, dtype):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16).to(dtype)
    before = images.clone()
    normalised = Normalise(mean, std)(images, memory_format)
    exact = images.double() / 255
    for channel in range(3):
        exact[:, channel] = (exact[:, channel] - mean[channel]) / std[channel]
    torch.testing.assert_close(normalised.double(), exact, rtol=0, atol=1e-6)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=memory_format)
    assert torch.equal(images, before)


def test_an_image_is_normalised_to_the_same_bits_in_any_batch_and_layout():
    canvases = torch.randint(0, 256, (7, 3, 19, 19), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([NORMALISE(centre_crop(canvas[None], 17)) for canvas in canvases])
    assert torch.equal(NORMALISE(centre_crop(canvases, 17)), alone)
    assert torch.equal(NORMALISE(centre_crop(canvases, 17), torch.channels_last), alone)


def test_a_crop_of_everything_is_free():
    canvases = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    assert centre_crop(canvases, 8) is canvases
    assert centre_crop(canvases, 6).data_ptr() == canvases[..., 1:, 1:].data_ptr()


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
