"""Batches are a function of (seed, epoch): every sample once, whatever the size of the batches."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import ImageBatches, batch_bounds
from tl_experiments.data.images import Images, load_images
from tl_experiments.data.mixing import NO_MIXING, Mixing
from tl_experiments.data.policies import RandAugment, TrivialAugment
from tl_experiments.data.sampling import epoch_order
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, Normalise, centre_crop
from tl_experiments.runtime.ranks import Ranks

CANVAS = Canvas(size=14, crop=12, interpolation="bilinear")
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
AUGMENTATION = Augmentation(hflip_prob=0.5, rotation_degrees=10.0, scale=(0.5, 1.0), ratio=(0.8, 1.25), erase_prob=0.0)
CPU = torch.device("cpu")
TRIVIAL = TrivialAugment(hflip_prob=0.5, rotation_degrees=0.0, scale=(0.5, 1.0), ratio=(0.8, 1.25), erase_prob=0.5)
RANDOM = RandAugment(
    hflip_prob=0.5, rotation_degrees=0.0, scale=(0.5, 1.0), ratio=(0.8, 1.25), erase_prob=0.5, num_ops=2, magnitude=9
)
KINDS = pytest.mark.parametrize("augmentation", [AUGMENTATION, TRIVIAL, RANDOM], ids=["crops", "trivial", "random"])


@pytest.fixture
def load(make_split: Callable[..., Split]) -> Callable[..., Images]:
    """Images whose label is their position."""

    def load(num_images: int, *, workers: int = 0, memory_bytes: int = 10**9) -> Images:
        split = make_split(num_images, num_classes=num_images)
        images = load_images(split, canvas=CANVAS, workers=workers, memory_bytes=memory_bytes)
        images.decode(device=CPU, work=lambda title: lambda done, total: None)  # noqa: ARG005
        return images

    return load


def image_batches(images: Images, *, batch_size: int = 8, seed: int | None = 0, **options) -> ImageBatches:
    return ImageBatches(
        images=images, size=12, normalise=NORMALISE, batch_size=batch_size, device=CPU, seed=seed, **options
    )


def seen(batches: ImageBatches, epoch: int) -> tuple[torch.Tensor, list[int]]:
    every = list(batches.epoch(epoch))
    return torch.cat([batch.inputs for batch in every]), torch.cat([batch.labels[0] for batch in every]).tolist()


def test_every_epoch_is_another_permutation():
    orders = [epoch_order(100, seed=0, epoch=epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[1] == epoch_order(100, seed=0, epoch=1).tolist()
    assert orders[1] != epoch_order(100, seed=1, epoch=1).tolist()


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "drop_single", "sizes"),
    [
        (10, 4, True, [4, 4, 2]),
        (9, 4, True, [4, 4]),
        (9, 4, False, [4, 4, 1]),
        (8, 4, True, [4, 4]),
        (1, 4, True, [1]),
        (3, 1, True, [1, 1, 1]),
        (3, 5, True, [3]),
        (0, 5, True, []),
    ],
)
def test_the_last_batch(num_samples, batch_size, drop_single, sizes):
    bounds = batch_bounds(num_samples, batch_size=batch_size, drop_single=drop_single)
    assert [end - start for start, end in bounds] == sizes
    assert [place for start, end in bounds for place in range(start, end)] == list(range(sum(sizes)))


def test_evaluation_is_the_normalised_centre_in_order(load):
    images = load(9)
    batches = image_batches(images, batch_size=4, seed=None, augmentation=AUGMENTATION)
    inputs, labels = seen(batches, 0)
    (canvases,) = images.batches([np.arange(9)])
    assert labels == list(range(9))
    assert torch.equal(inputs, NORMALISE(centre_crop(canvases, 12)))
    assert (len(batches), batches.num_samples) == (3, 9)


def test_training_follows_the_order_of_the_epoch(load):
    batches = image_batches(load(20))
    assert seen(batches, 3)[1] == epoch_order(20, seed=0, epoch=3).tolist()
    plain = {label: image for image, label in zip(*seen(image_batches(load(20), seed=None), 0), strict=True)}
    for image, label in zip(*seen(batches, 3), strict=True):
        assert torch.equal(image, plain[label])


def test_labels_have_a_member_axis(load):
    batch = next(image_batches(load(20)).epoch(0))
    assert batch.inputs.shape == (8, 3, 12, 12)
    assert (batch.labels.shape, batch.labels.dtype) == ((1, 8), torch.int64)


def test_a_single_last_sample_is_left_out_of_training(load):
    batches = image_batches(load(17))
    assert (len(batches), batches.num_samples) == (2, 16)
    assert len(seen(batches, 0)[1]) == 16


@pytest.mark.usefixtures("small_chunks")
@KINDS
@pytest.mark.parametrize(("workers", "memory_bytes"), [(2, 10**9), (0, 0), (2, 0)])
def test_workers_and_memory_do_not_change_a_bit(load, workers, memory_bytes, augmentation):
    reference = image_batches(load(20), augmentation=augmentation)
    other = image_batches(load(20, workers=workers, memory_bytes=memory_bytes), augmentation=augmentation)
    assert seen(reference, 1)[1] == seen(other, 1)[1]
    assert torch.equal(seen(reference, 1)[0], seen(other, 1)[0])


@KINDS
def test_a_sample_looks_the_same_in_batches_of_any_size(load, augmentation):
    images = load(20)
    small, large = (image_batches(images, batch_size=size, augmentation=augmentation) for size in (4, 10))
    assert torch.equal(seen(small, 2)[0], seen(large, 2)[0])


def test_each_epoch_and_seed_augments_anew(load):
    images = load(20)

    def view(seed: int, epoch: int) -> torch.Tensor:
        inputs, labels = seen(image_batches(images, seed=seed, augmentation=AUGMENTATION), epoch)
        return inputs[labels.index(7)]

    assert torch.equal(view(0, 0), view(0, 0))
    assert not torch.equal(view(0, 0), view(0, 1))
    assert not torch.equal(view(0, 0), view(1, 0))


def test_memory_format(load):
    batch = next(image_batches(load(20), memory_format=torch.channels_last).epoch(0))
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.inputs, next(image_batches(load(20)).epoch(0)).inputs)


@pytest.mark.parametrize("augmentation", [AUGMENTATION, TRIVIAL, None], ids=["augmented", "policy", "plain"])
def test_batches_are_made_on_the_device(load, augmentation):
    """Without a GPU: `meta` tensors have no values, and whatever mixed them with others would fail."""
    meta = torch.device("meta")
    batches = replace(image_batches(load(20), augmentation=augmentation), device=meta)
    every = list(batches.epoch(0))
    assert [(batch.inputs.device, batch.labels.device) for batch in every] == [(meta, meta)] * 3
    assert [(batch.inputs.shape[0], batch.labels.shape) for batch in every] == [(8, (1, 8)), (8, (1, 8)), (4, (1, 4))]


@pytest.mark.parametrize("mixing", [NO_MIXING, Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)], ids=["whole", "mixed"])
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_batch_as_it_is_for_one(load, count, mixing):
    batches = image_batches(load(19), augmentation=AUGMENTATION, mixing=mixing)
    shared = [list(batches.epoch(1, skip=1, ranks=Ranks(rank, count))) for rank in range(count)]
    for whole, parts in zip(batches.epoch(1, skip=1), zip(*shared, strict=True), strict=True):
        own = [part for part in parts if not part.stands_in]
        assert {part.num_in_step for part in parts} == {whole.num_samples} == {sum(part.num_samples for part in own)}
        for image, label in zip(whole.inputs, whole.labels[0].tolist(), strict=True):
            [found] = [
                other
                for part in own
                for other, known in zip(part.inputs, part.labels[0].tolist(), strict=True)
                if known == label
            ]
            torch.testing.assert_close(found, image, rtol=0, atol=1e-6)


def test_a_process_without_a_sample_of_its_own_stands_in(load):
    """The last batch of 10 is of two, which four processes share."""
    last = [list(image_batches(load(10)).epoch(0, ranks=Ranks(rank, 4)))[-1] for rank in range(4)]
    assert [batch.stands_in for batch in last] == [False, False, True, True]
    assert [batch.num_samples for batch in last] == [1, 1, 1, 1]
