"""Operations are torchvision's, spaces too; what a sample gets depends on (seed, epoch, sample) and on no neighbour."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as oracle

from tl_experiments.data.augmentation import Augmentation, Parameters, apply
from tl_experiments.data.op_spaces import BLENDS, OPS, RANDOM, TRIVIAL, Ops, Space
from tl_experiments.data.policies import RandAugment, TrivialAugment

CROPS = {"hflip_prob": 0.5, "rotation_degrees": 0.0, "scale": (0.3, 1.0), "ratio": (0.75, 4 / 3)}
TRIVIAL_AUGMENT = TrivialAugment(**CROPS, erase_prob=0.5)
RAND_AUGMENT = RandAugment(**CROPS, erase_prob=0.5, num_ops=3, magnitude=12)
POLICIES = pytest.mark.parametrize("policy", [TRIVIAL_AUGMENT, RAND_AUGMENT], ids=["trivial", "randaugment"])
SPACES = pytest.mark.parametrize(
    ("space", "theirs"), [(TRIVIAL, v2.TrivialAugmentWide), (RANDOM, v2.RandAugment)], ids=["trivial", "randaugment"]
)
SIZE = 40
STRENGTHS = range(31)
COLOURS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "brightness": lambda image, value: oracle.adjust_brightness(image, value),
    "color": lambda image, value: oracle.adjust_saturation(image, value),
    "contrast": lambda image, value: oracle.adjust_contrast(image, value),
    "sharpness": lambda image, value: oracle.adjust_sharpness(image, value),
    "posterize": lambda image, value: oracle.posterize(image, int(value)),
    "solarize": oracle.solarize,
    "autocontrast": lambda image, _: oracle.autocontrast(image),
    "equalize": lambda image, _: oracle.equalize(image),
    "identity": lambda image, _: image,
}


def affine(image: torch.Tensor, **changes: object) -> torch.Tensor:
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return oracle.affine(image, **{**still, **changes}, interpolation=InterpolationMode.BILINEAR)  # type: ignore[arg-type]


def slope(value: float) -> float:
    return math.degrees(math.atan(value))


MOVES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "shear_x": lambda image, value: affine(image, shear=[slope(value), 0.0], center=[0, 0]),
    "shear_y": lambda image, value: affine(image, shear=[0.0, slope(value)], center=[0, 0]),
    "translate_x": lambda image, value: affine(image, translate=[int(value), 0]),
    "translate_y": lambda image, value: affine(image, translate=[0, int(value)]),
    "rotate": lambda image, value: oracle.rotate(image, value, InterpolationMode.BILINEAR),
}


@pytest.fixture(scope="module")
def photos(make_photo) -> torch.Tensor:
    """(16, 3, 40, 40) uint8, among them a dull one, a grey one, one of two values and a flat one."""
    arrays = [np.array(make_photo(SIZE, SIZE, seed=seed)).transpose(2, 0, 1) for seed in range(16)]
    images = torch.from_numpy(np.stack(arrays))
    images[0] = images[0] // 4 + 90
    images[1] = images[1, :1]
    images[2] = torch.where(images[2] > 128, 200, 100)
    images[3] = torch.tensor([10, 128, 250])[:, None, None]
    return images


def still(count: int, ops: Ops) -> Parameters:
    one, zero = np.ones(count), np.zeros(count)
    return Parameters(mirror=one, angle=zero, width=one, height=one, x=zero, y=zero, ops=ops)


def ops_of(space: Space, *rounds: tuple[str, int, int], count: int) -> Ops:
    """The same rounds of (operation, strength, sign) for all samples."""
    op, strength, sign = (np.repeat(np.array(part)[:, None], count, axis=1) for part in zip(*rounds, strict=True))
    places = np.vectorize(OPS.index)(op)
    return Ops(space=space, op=places, strength=strength, sign=sign.astype(float))


def changed(images: torch.Tensor, space: Space, *rounds: tuple[str, int, int]) -> torch.Tensor:
    return apply(images, still(len(images), ops_of(space, *rounds, count=len(images))), size=images.shape[-1])


def value_of(space: Space, op: str, strength: int, sign: int) -> float:
    return float(ops_of(space, (op, strength, sign), count=1).magnitudes(SIZE)[0, 0])


@SPACES
@pytest.mark.parametrize("size", [32, 224, 299])
def test_a_space_is_torchvisions(space: Space, theirs: type, size: int) -> None:
    expected = theirs._AUGMENTATION_SPACE
    assert [name.lower() for name in expected] == [op.replace("_", "") for op in OPS]
    both = ops_of(space, *[(op, strength, -1) for op in OPS for strength in STRENGTHS], count=1)
    ours = both.magnitudes(size).reshape(len(OPS), 31)
    for op, row, (make, signed) in zip(OPS, ours, expected.values(), strict=True):
        values = make(31, size, size)
        values = np.zeros(31) if values is None else values.double().numpy() * (255 if op == "solarize" else 1)
        values = (-values if signed else values) + (op in BLENDS)
        np.testing.assert_allclose(row, values, atol=3e-5, err_msg=op)


@SPACES
@pytest.mark.parametrize("op", COLOURS)
def test_a_change_of_colours_is_torchvisions_within_a_grey_level(
    space: Space, theirs: type, op: str, photos: torch.Tensor
) -> None:
    for strength in STRENGTHS:
        for sign in (-1, 1):
            ours = changed(photos, space, (op, strength, sign))
            expected = COLOURS[op](photos, value_of(space, op, strength, sign)).float()
            difference = (ours - expected).abs()
            assert difference.max() <= 1, (theirs, strength, sign)
            assert difference.mean() < 0.2
            assert torch.equal(ours, ours.round())


@SPACES
@pytest.mark.parametrize("op", MOVES)
def test_a_move_is_torchvisions_where_it_shows_the_image(
    space: Space, theirs: type, op: str, photos: torch.Tensor
) -> None:
    white = torch.full_like(photos, 255)
    seen = 0
    for strength in (0, 1, 7, 14, 20, 30):
        for sign in (-1, 1):
            value = value_of(space, op, strength, sign)
            inside = MOVES[op](white, value) == 255
            difference = (changed(photos, space, (op, strength, sign)) - MOVES[op](photos, value).float()).abs()
            assert difference[inside].max() <= 1.01, (theirs, strength, sign)
            seen += int(inside.sum())
    assert seen > 4 * white.numel()


def test_rounds_follow_one_another(photos: torch.Tensor) -> None:
    """Moves among moves and colours among colours, in the order in which they are drawn."""
    moved = changed(photos, TRIVIAL, ("rotate", 20, 1), ("translate_x", 12, 1))
    expected, inside = (
        MOVES["translate_x"](MOVES["rotate"](images, 90.0), 12.8) for images in (photos, torch.full_like(photos, 255))
    )
    assert (moved - expected.float()).abs()[inside == 255].max() <= 2  # theirs is sampled twice
    ours = changed(photos, TRIVIAL, ("solarize", 15, 1), ("equalize", 0, 1), ("posterize", 30, 1))
    assert torch.equal(ours, oracle.posterize(oracle.equalize(oracle.solarize(photos, 127.5)), 2).float())


def test_what_a_move_uncovers_is_the_image_beyond_the_crop(photos: torch.Tensor) -> None:
    """A canvas that is wider than the output holds more than black."""
    parameters = still(16, ops_of(TRIVIAL, ("translate_x", 4, -1), count=16))
    torch.testing.assert_close(
        apply(photos, parameters, size=32), photos[..., 4:36, 8:40].float(), rtol=0, atol=0
    )  # 4 pixels of 8 that the centre crop leaves out: the crop begins at 4


@POLICIES
def test_a_sample_does_not_depend_on_its_neighbours(policy: Augmentation, photos: torch.Tensor) -> None:
    """Bit for bit: in a batch of 256, alone, and in another company."""
    canvases, indices = photos.repeat(16, 1, 1, 1), np.arange(256)
    together = apply(canvases, policy.parameters(indices, seed=0, epoch=1), size=36)
    for chosen in (*np.arange(0, 256, 3)[:, None], np.array([200, 7, 90, 41, 3])):
        some = apply(canvases[chosen], policy.parameters(indices[chosen], seed=0, epoch=1), size=36)
        assert torch.equal(some, together[chosen])


@POLICIES
def test_views_stay_images(policy: Augmentation, photos: torch.Tensor) -> None:
    views = apply(photos.repeat(16, 1, 1, 1), policy.parameters(np.arange(256), seed=0, epoch=1), size=36)
    assert views.shape == (256, 3, 36, 36)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 255
    assert torch.equal(views, views.round())


def test_the_smallest_images_pass_through_every_operation() -> None:
    images = torch.arange(14 * 12, dtype=torch.uint8).view(14, 3, 2, 2)
    op = np.arange(14)[None]
    ops = Ops(space=TRIVIAL, op=op, strength=np.full_like(op, 30), sign=np.ones(op.shape))
    assert apply(images, still(14, ops), size=2).isfinite().all()


def test_draws_are_uniform_and_independent() -> None:
    indices = np.arange(60_000)
    ops = TRIVIAL_AUGMENT.parameters(indices, seed=0, epoch=0).ops
    assert ops is not None
    assert ops.op.shape == (1, 60_000)
    np.testing.assert_allclose(np.bincount(ops.op[0], minlength=14) / 60_000, 1 / 14, atol=0.005)
    np.testing.assert_allclose(np.bincount(ops.strength[0], minlength=31) / 60_000, 1 / 31, atol=0.004)
    assert ops.sign.mean() == pytest.approx(0, abs=0.02)
    rounds = RAND_AUGMENT.parameters(indices, seed=0, epoch=0).ops
    others = [TRIVIAL_AUGMENT.parameters(indices, seed=s, epoch=e).ops for s, e in ((1, 0), (0, 1))]
    assert rounds is not None
    assert set(rounds.strength.flat) == {12}
    drawn = [ops.op[0], ops.strength[0], ops.sign[0], rounds.op[1], rounds.op[2], rounds.sign[1]]
    drawn += [other.op[0] for other in others if other] + [other.strength[0] for other in others if other]
    assert len(drawn) == 10
    assert abs(np.corrcoef(np.stack(drawn)) - np.eye(10)).max() < 0.02


def test_a_policy_is_always_random_and_never_only_mirrors() -> None:
    still = {"rotation_degrees": 0.0, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "erase_prob": 0.0}
    for hflip_prob in (0.0, 0.5):
        for policy in (
            TrivialAugment(hflip_prob=hflip_prob, **still),
            RandAugment(hflip_prob=hflip_prob, **still, num_ops=1, magnitude=0),
        ):
            assert policy.is_random
            assert not policy.only_mirrors


def test_a_policy_stays_one_when_its_mirror_is_decided() -> None:
    decided = replace(RAND_AUGMENT, hflip_prob=None).resolved(mirror_safe=False)
    assert decided == replace(RAND_AUGMENT, hflip_prob=0.0)


@pytest.mark.gpu
@POLICIES
def test_a_gpu_gives_the_same_views(policy: Augmentation, photos: torch.Tensor) -> None:
    """But for a few pixels, that sampling has rounded to another grey level."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    parameters = policy.parameters(np.arange(16), seed=0, epoch=0)
    difference = apply(photos.cuda(), parameters, size=36).cpu() - apply(photos, parameters, size=36)
    assert (difference != 0).float().mean() < 0.01
