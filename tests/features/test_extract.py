"""Features are a function of the image alone: not of how many others there are, nor of the backbone's mode."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Canvas, Normalise, centre_crop
from tl_experiments.features.extract import View, make_extractor
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.runtime.precision import Compute, Precision

BATCH_SIZE = 16
NUM_IMAGES = BATCH_SIZE + 6
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return efficientnet_lite0(name="efficientnet_lite0", weights="default", image_size=32, preferred_size=None, seed=0)


@pytest.fixture(scope="module")
def load() -> Callable[..., Images]:
    """Some of the same random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 40, 40, 3), dtype=np.uint8)
    source = ArraySource(pixels, np.arange(NUM_IMAGES, dtype=np.int64), "random")

    def load(indices: Sequence[int] = range(NUM_IMAGES), *, memory_bytes: int = 10**9) -> Images:
        split = Split("train", source, np.array(indices))
        canvas = Canvas(size=36, crop=32, interpolation="bilinear")
        images = load_images(split, canvas=canvas, workers=0, memory_bytes=memory_bytes)
        images.decode(device=torch.device("cpu"), work=lambda title: lambda done, total: None)  # noqa: ARG005
        return images

    return load


def extract(
    backbone: Backbone,
    images: Images,
    *,
    precision: str = "fp32",
    layout: str = "contiguous",
    positions: Sequence[int] | None = None,
    view: View | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> torch.Tensor:
    """Features of all images, or of those at some positions."""
    full, infer = Precision("fp32", "cpu"), Precision(precision, "cpu")
    compute = Compute(torch.device("cpu"), full, infer, layout, infer_batch_size=BATCH_SIZE)
    extractor = make_extractor(backbone, size=backbone.input_spec.size, normalise=NORMALISE, compute=compute)
    wanted = np.array(range(len(images)) if positions is None else positions)
    return torch.cat(list(extractor.outputs(images, wanted, view=view, on_progress=on_progress)))


@pytest.fixture(scope="module")
def features(backbone: Backbone, load: Callable[..., Images]) -> torch.Tensor:
    """Of all images."""
    return extract(backbone, load())


def test_there_are_as_many_features_as_images(features: torch.Tensor, backbone: Backbone) -> None:
    assert features.shape == (NUM_IMAGES, backbone.feature_dim)
    assert features.dtype == torch.float32
    assert features.std(dim=0).max() > 0, "images differ"


@torch.no_grad()
def test_features_are_the_backbones_of_the_normalised_centre(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    (canvases,) = load().batches([np.arange(NUM_IMAGES)])
    expected = backbone.eval()(NORMALISE(centre_crop(canvases, 32)))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)  # BatchNorm is folded: some rounding differs


@pytest.mark.parametrize("num_images", [1, 7, BATCH_SIZE, BATCH_SIZE + 1])
def test_an_image_has_the_same_bits_among_fewer_others(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images], num_images: int
) -> None:
    some = extract(backbone, load(range(num_images)))
    assert torch.equal(some, features[:num_images])


def test_an_image_has_the_same_bits_among_others_in_another_place(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    chosen = [NUM_IMAGES - 1, 3, 12]
    assert torch.equal(extract(backbone, load(chosen)), features[chosen])


def test_an_image_has_the_same_bits_whichever_others_are_asked_for(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    chosen = [NUM_IMAGES - 1, 3, 12]
    assert torch.equal(extract(backbone, load(), positions=chosen), features[chosen])


@torch.no_grad()
def test_a_view_is_a_fixed_crop_of_the_augmentation(backbone: Backbone, load: Callable[..., Images]) -> None:
    images = load()
    augmentation = Augmentation(
        hflip_prob=0.5, rotation_degrees=15.0, scale=(0.5, 1.0), ratio=(0.9, 1.1), erase_prob=0.0
    )
    (canvases,) = images.batches([np.arange(NUM_IMAGES)])
    for number in range(2):
        parameters = augmentation.fixed_view(images.digests, number=number)
        expected = backbone.eval()(NORMALISE(apply(canvases, parameters, size=32)))
        views = extract(backbone, images, view=View(augmentation, number, 2))
        torch.testing.assert_close(views, expected, rtol=1e-4, atol=1e-5)
        chosen = [NUM_IMAGES - 1, 3, 12]
        some = extract(backbone, load(chosen), view=View(augmentation, number, 2))
        assert torch.equal(some, views[chosen]), "a view is a function of the image alone"


def test_images_that_are_streamed_have_the_same_features(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    assert torch.equal(extract(backbone, load(memory_bytes=0)), features)


def test_a_backbone_in_train_mode_is_frozen_all_the_same(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert torch.equal(extract(backbone.train(), load(range(9))), features[:9])
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_features_can_be_trained_on(features: torch.Tensor) -> None:
    head = torch.nn.Linear(features.shape[1], 3)
    F.cross_entropy(head(features[:8]), torch.arange(8) % 3).backward()
    assert head.weight.grad is not None
    assert not features.requires_grad
    assert not features.is_inference()
    features.clone().requires_grad_().sum().backward()


def test_no_gradient_is_kept_of_a_backbone_that_could_be_trained(
    backbone: Backbone, load: Callable[..., Images]
) -> None:
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert extract(backbone, load([0, 1])).grad_fn is None


def test_lower_precision_gives_nearly_the_same_features(
    features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]
) -> None:
    rounded = extract(backbone, load(range(9)), precision="bf16").float()
    assert not torch.equal(rounded, features[:9])
    assert F.cosine_similarity(rounded, features[:9]).min() > 0.98


def test_the_layout_does_not_matter(features: torch.Tensor, backbone: Backbone, load: Callable[..., Images]) -> None:
    layouts: list[bool] = []
    hook = backbone.register_forward_pre_hook(  # it is copied with the backbone
        lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    other = extract(backbone, load(range(9)), layout="channels_last")
    hook.remove()
    assert layouts
    assert all(layouts)
    torch.testing.assert_close(other, features[:9], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_images", [1, BATCH_SIZE, BATCH_SIZE + 1])
def test_the_backbone_sees_batches_of_one_size(
    backbone: Backbone, load: Callable[..., Images], num_images: int
) -> None:
    """Kernels, and with them bits, go by the size of the batch."""
    sizes: list[int] = []
    hook = backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    extract(backbone, load(range(num_images)))
    hook.remove()
    assert [size for size in sizes if size > 1] == [BATCH_SIZE] * -(-num_images // BATCH_SIZE)


def test_progress_counts_images(backbone: Backbone, load: Callable[..., Images]) -> None:
    told: list[tuple[int, int]] = []
    extract(backbone, load(), on_progress=lambda done, total: told.append((done, total)))
    assert told == [(BATCH_SIZE, NUM_IMAGES), (NUM_IMAGES, NUM_IMAGES)]


@pytest.mark.parametrize(("num_views", "expected"), [(2, [{1.0}, {-1.0}]), (3, [{-1.0, 1.0}] * 3)])
def test_two_views_of_what_only_mirrors_are_the_image_and_its_mirror_image(
    num_views: int, expected: list[set[float]]
) -> None:
    digests = [hashlib.sha256(bytes([index])).hexdigest() for index in range(100)]
    mirrors = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), erase_prob=0.0)
    views = [View(mirrors, number, num_views) for number in range(num_views)]
    drawn = [view.fixed_augmentation.fixed_view(digests, number=view.number) for view in views]
    assert [set(parameters.mirror) for parameters in drawn] == expected
    assert not any(parameters.angle.any() or parameters.x.any() or parameters.y.any() for parameters in drawn)
