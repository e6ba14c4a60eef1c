"""What a sample gets depends on (seed, epoch, sample) alone, and the affine map does what its parameters say."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_experiments.data.augmentation import Augmentation, Parameters, apply
from tl_experiments.data.transforms import centre_crop

STANDARD = Augmentation(hflip_prob=0.5, rotation_degrees=15.0, scale=(0.35, 1.0), ratio=(0.75, 4 / 3), erase_prob=0.0)
NONE = Augmentation(hflip_prob=0.0, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
FIELDS = ("mirror", "angle", "width", "height", "x", "y")


@pytest.fixture(scope="module")
def photos(make_photo) -> Callable[[int, int], torch.Tensor]:
    def make(count: int, side: int) -> torch.Tensor:
        arrays = [np.asarray(make_photo(side, side, seed=seed)).transpose(2, 0, 1) for seed in range(count)]
        return torch.from_numpy(np.stack(arrays))

    return make


def fixed(count: int, **changes: float) -> Parameters:
    values = {"mirror": 1.0, "angle": 0.0, "width": 1.0, "height": 1.0, "x": 0.0, "y": 0.0} | changes
    return Parameters(**{name: np.full(count, value) for name, value in values.items()})


def test_parameters_do_not_depend_on_the_batch():
    whole = STANDARD.parameters(np.arange(100), seed=1, epoch=2)
    some = np.array([70, 3, 99])
    part = STANDARD.parameters(some, seed=1, epoch=2)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])


@pytest.mark.parametrize("other", [{"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}])
def test_seed_and_epoch_change_every_parameter(other):
    one = STANDARD.parameters(np.arange(500), seed=1, epoch=0)
    two = STANDARD.parameters(np.arange(500), **other)
    for name in FIELDS:
        assert abs(np.corrcoef(getattr(one, name), getattr(two, name))[0, 1]) < 0.2


def test_parameters_stay_in_their_ranges_and_fill_them():
    drawn = STANDARD.parameters(np.arange(20_000), seed=0, epoch=0)
    area, ratio = drawn.width * drawn.height, drawn.width / drawn.height
    for values, low, high in (
        (area, 0.35, 1.0),
        (np.log(ratio), math.log(0.75), math.log(4 / 3)),
        (np.degrees(drawn.angle), -15, 15),
        (drawn.x, -1, 1),
        (drawn.y, -1, 1),
    ):
        assert values.min() >= low - 1e-9
        assert values.max() <= high + 1e-9
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert (drawn.mirror == -1).mean() == pytest.approx(0.5, abs=0.02)
    parameters = np.stack([getattr(drawn, name) for name in ("mirror", "angle", "x", "y")] + [area, ratio])
    assert abs(np.corrcoef(parameters) - np.eye(6)).max() < 0.03


@pytest.mark.parametrize(("canvas", "size"), [(64, 64), (73, 64), (72, 64), (65, 64), (342, 299)])
def test_parameters_that_change_nothing_give_the_centre_crop(photos, canvas, size):
    images = photos(2, canvas)
    torch.testing.assert_close(apply(images, fixed(2), size=size), centre_crop(images, size).float(), rtol=0, atol=0.05)


def test_a_mirror_is_an_exact_mirror(photos):
    images = photos(2, 40)
    torch.testing.assert_close(
        apply(images, fixed(2, mirror=-1.0), size=32), centre_crop(images, 32).flip(-1).float(), rtol=0, atol=0.05
    )


def test_a_rotation_by_a_right_angle_is_exact(photos):
    images = photos(2, 32)
    turned = apply(images, fixed(2, angle=math.pi / 2), size=32)
    torch.testing.assert_close(turned, images.rot90(1, (-2, -1)).float(), rtol=0, atol=0.05)


@pytest.mark.parametrize(("x", "y", "left", "top"), [(-1, -1, 0, 0), (1, -1, 32, 0), (-1, 1, 0, 32), (0, 0, 16, 16)])
def test_a_crop_shows_its_place_on_the_canvas(photos, x, y, left, top):
    """Half the side of an output as large as the canvas: every second output pixel pair is one canvas pixel."""
    images = photos(1, 64)
    crop = apply(images, fixed(1, width=0.5, height=0.5, x=x, y=y), size=64)
    expected = images[..., top : top + 32, left : left + 32].float()
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(crop, 2)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=12
    )


def test_samples_get_their_own_parameters_in_one_batch(photos):
    images = photos(3, 48)
    parameters = STANDARD.parameters(np.array([4, 8, 15]), seed=0, epoch=0)
    together = apply(images, parameters, size=40)
    for k, index in enumerate((4, 8, 15)):
        alone = apply(images[k : k + 1], STANDARD.parameters(np.array([index]), seed=0, epoch=0), size=40)
        assert torch.equal(together[k : k + 1], alone)


def test_augmented_images_keep_their_range(photos):
    out = apply(photos(16, 48), STANDARD.parameters(np.arange(16), seed=0, epoch=0), size=40)
    assert out.shape == (16, 3, 40, 40)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 255.001


def test_beyond_the_canvas_its_reflection_is_seen():
    """Corners that a rotation uncovers are not black."""
    white = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    assert apply(white, fixed(1, angle=math.pi / 4), size=40).min() > 254.9


def test_without_crops_the_view_stays_in_the_centre():
    flips = replace(NONE, hflip_prob=0.5).parameters(np.arange(50), seed=0, epoch=0)
    assert not flips.x.any()
    assert not flips.y.any()
    assert set(flips.mirror) == {-1.0, 1.0}


def test_what_counts_as_random():
    assert not NONE.is_random
    for change in ({"hflip_prob": 0.1}, {"hflip_prob": None}, {"rotation_degrees": 1.0}, {"scale": [0.5, 1.0]}):
        assert replace(NONE, **change).is_random
    assert not replace(NONE, scale=[1, 1], ratio=[1.0, 1.0]).is_random


def test_an_undecided_flip_follows_the_dataset():
    undecided = replace(STANDARD, hflip_prob=None)
    assert undecided.resolved(mirror_safe=True).hflip_prob == 0.5
    assert undecided.resolved(mirror_safe=False).hflip_prob == 0.0
    assert replace(STANDARD, hflip_prob=0.3).resolved(mirror_safe=False).hflip_prob == 0.3
    with pytest.raises(ValueError, match="resolved"):
        undecided.parameters(np.arange(2), seed=0, epoch=0)


MIRRORS = replace(NONE, hflip_prob=0.5)
DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]


def test_what_only_mirrors_is_told_from_the_rest():
    assert MIRRORS.only_mirrors
    for change in ({"hflip_prob": 0.0}, {"hflip_prob": 0.4}, {"rotation_degrees": 1.0}, {"scale": (0.5, 1.0)}):
        assert not replace(MIRRORS, **change).only_mirrors


def test_a_fixed_view_depends_on_the_content_alone():
    """Not on the place in a split, the neighbours or a seed."""
    whole = STANDARD.fixed_view(DIGESTS, number=1)
    some = [70, 3, 99]
    part = STANDARD.fixed_view([DIGESTS[index] for index in some], number=1)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])


def test_fixed_views_are_drawn_like_the_views_of_epochs():
    """Each is in the augmentation's ranges, and two of them have nothing in common."""
    one, two = (STANDARD.fixed_view(DIGESTS, number=number) for number in (0, 1))
    for view in (one, two):
        assert (view.mirror == -1).mean() == pytest.approx(0.5, abs=0.05)
        assert np.degrees(view.angle).mean() == pytest.approx(0, abs=1)
        assert (view.width * view.height).mean() == pytest.approx((0.35 + 1) / 2, abs=0.03)
        assert view.x.std() == pytest.approx(1 / math.sqrt(3), abs=0.03)
    for name in FIELDS:
        assert abs(np.corrcoef(getattr(one, name), getattr(two, name))[0, 1]) < 0.08


@pytest.mark.gpu
def test_a_gpu_gives_the_same_views(photos):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, parameters = photos(8, 48), STANDARD.parameters(np.arange(8), seed=0, epoch=0)
    on_gpu = apply(images.cuda(), parameters, size=40).cpu()
    torch.testing.assert_close(on_gpu, apply(images, parameters, size=40), rtol=0, atol=0.05)
