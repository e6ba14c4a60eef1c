"""The sheet of mistakes shows the images themselves, in order, with what was predicted and what is true."""

import numpy as np
from PIL import Image

from tl_experiments.tracking.gallery import Mistake, as_tile, wrong_gallery


def make_mistakes(count: int) -> list[Mistake]:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return [
        Mistake(image=image, name=f"cat/{index}.jpg", true="cat", predicted="dog", confidence=0.987)
        for index, image in enumerate(images)
    ]


def test_small_images_are_enlarged_pixel_by_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    large = np.asarray(as_tile(Image.fromarray(image)))
    assert large.shape == (160, 160, 3)
    assert np.array_equal(large[10::20, 10::20], image)


def test_large_images_keep_their_shape() -> None:
    assert as_tile(Image.new("RGB", (160, 320))).size == (80, 160)


def test_the_sheet_holds_every_image_in_order() -> None:
    mistakes = make_mistakes(7)
    sheet = np.asarray(wrong_gallery(mistakes))
    corners = [  # where each image is found on the sheet
        np.argwhere((np.lib.stride_tricks.sliding_window_view(sheet, (1, 1, 3))[..., 0, 0, :] == pixel).all(axis=-1))
        for pixel in (mistake.image[:, 0, 0] for mistake in mistakes)
    ]
    tops = [min(map(tuple, found)) for found in (corner.reshape(-1, corner.shape[-1])[:, :2] for corner in corners)]
    assert tops == sorted(tops)
    for (top, left), mistake in zip(tops, mistakes, strict=True):
        assert np.array_equal(
            sheet[top + 10 : top + 160 : 20, left + 10 : left + 160 : 20], mistake.image.transpose(1, 2, 0)
        )


def test_captions_say_what_was_predicted_and_what_is_true() -> None:
    [mistake] = make_mistakes(1)
    assert mistake.caption() == ("pred dog · 99%\ntrue cat", "cat/0.jpg")


def test_long_names_are_cut_in_the_middle() -> None:
    long = Mistake(
        image=np.zeros((3, 8, 8), dtype=np.uint8),
        name="a" * 40 + "b" * 40,
        true="$x$",
        predicted="y" * 60,
        confidence=1.0,
    )
    above, below = long.caption()
    assert max(map(len, above.splitlines())) <= 35
    assert len(below) <= 28
    assert below[0] == "a"
    assert below[-1] == "b"
    assert "true $x$" in above


def test_a_gallery_without_mistakes_says_so() -> None:
    sheet = np.asarray(wrong_gallery([]))
    assert (sheet < 128).any(), "a title is written"
    assert sheet.shape[0] < 100
