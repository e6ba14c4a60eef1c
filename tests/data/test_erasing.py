"""Boxes have the paper's sizes, lie inside, and are full of noise that is the sample's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.erasing import draw_boxes, erase

ERASING = Augmentation(hflip_prob=0.0, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=1.0)


def test_boxes_have_the_areas_and_ratios_of_the_paper() -> None:
    boxes = draw_boxes(np.arange(50_000), prob=1.0, seed=0, epoch=0)
    area, ratio = boxes.height * boxes.width, boxes.height / boxes.width
    assert area.min() == pytest.approx(0.02, abs=1e-3)
    assert area.max() == pytest.approx(0.4, abs=1e-3)
    assert area.mean() == pytest.approx(0.21, abs=2e-3)
    assert ratio.min() == pytest.approx(0.3, abs=1e-3)
    assert ratio.max() == pytest.approx(10 / 3, abs=1e-2)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.02)
    assert max(boxes.height.max(), boxes.width.max()) <= 1 + 1e-9


@pytest.mark.parametrize("size", [1, 2, 31, 224])
def test_boxes_lie_inside_and_reach_every_edge(size: int) -> None:
    top, bottom, left, right = draw_boxes(np.arange(20_000), prob=1.0, seed=0, epoch=0).pixels(size).T
    for low, high in ((top, bottom), (left, right)):
        assert (low < high).all()
        assert low.min() == 0
        assert high.max() == size


def test_so_many_are_erased_whoever_their_neighbours_are() -> None:
    whole = draw_boxes(np.arange(20_000), prob=0.3, seed=1, epoch=2)
    some = np.array([7, 19_999, 3])
    part = draw_boxes(some, prob=0.3, seed=1, epoch=2)
    for name in ("height", "width", "y", "x", "noise"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])
    assert (whole.height > 0).mean() == pytest.approx(0.3, abs=0.01)
    for seed, epoch in ((2, 2), (1, 3)):
        other = draw_boxes(np.arange(20_000), prob=0.3, seed=seed, epoch=epoch)
        assert abs(np.corrcoef(whole.height > 0, other.height > 0)[0, 1]) < 0.03
        assert not (other.noise == whole.noise).any()


def test_a_box_becomes_uniform_noise_and_the_rest_stays() -> None:
    boxes = draw_boxes(np.arange(64), prob=0.5, seed=0, epoch=0)
    images = torch.full((64, 3, 32, 32), -1.0)
    erase(images, boxes)
    noise = []
    for image, share, (top, bottom, left, right) in zip(images, boxes.height, boxes.pixels(32), strict=True):
        if share:
            noise.append(image[:, top:bottom, left:right].flatten(1).clone())
            image[:, top:bottom, left:right] = -1
    assert (images == -1).all()
    assert 20 < len(noise) < 44
    values = torch.cat(noise, dim=1)
    assert torch.equal(values, values.round())
    assert (values.min(), values.max()) == (0, 255)
    assert values.mean() == pytest.approx(127.5, abs=2)
    assert values.std() == pytest.approx(256 / 12**0.5, abs=1)
    between = torch.corrcoef(torch.cat([values, values.roll(1, dims=1)]))  # channels, and pixels side by side
    assert (between - torch.eye(6)).abs().max() < 0.03


def test_noise_is_another_for_every_sample() -> None:
    views = apply(
        torch.zeros(50, 3, 8, 8, dtype=torch.uint8), ERASING.parameters(np.arange(50), seed=0, epoch=0), size=8
    )
    assert len({view.numpy().tobytes() for view in views}) == 50


def test_erasing_alone_is_random() -> None:
    assert ERASING.is_random
    assert not replace(ERASING, hflip_prob=0.5).only_mirrors
    assert not replace(ERASING, erase_prob=0.0).is_random
    assert replace(ERASING, erase_prob=0.0).parameters(np.arange(2), seed=0, epoch=0).boxes is None
