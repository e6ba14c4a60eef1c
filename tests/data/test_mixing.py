"""Mixed images are those of torchvision's references; which they are is a function of (seed, epoch, batch)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import kstest
from torchvision.transforms import v2

from tl_experiments.data.batches import Batch, ImageBatches
from tl_experiments.data.images import load_images
from tl_experiments.data.mixing import NO_MIXING, Mixed, Mixing, beta
from tl_experiments.data.sampling import balanced, epoch_order
from tl_experiments.data.source import Split
from tl_experiments.data.transforms import Canvas, Normalise

MIXUP, CUTMIX = Mixing(mixup_alpha=0.4, cutmix_alpha=0.0), Mixing(mixup_alpha=0.0, cutmix_alpha=1.0)
BOTH = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)
NUM_CLASSES = 5


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 3, 10, 14, generator=torch.Generator().manual_seed(0))


OWN = torch.tensor([0, 1, 2, 3, 4, 0])  # torchvision knows its labels by being this very tensor
LABELS = OWN[None]


def mix(mixing: Mixing, images: torch.Tensor, *, number: int, epoch: int = 1) -> tuple[torch.Tensor, Mixed]:
    own = images.clone()
    mixed = mixing.mix(own, LABELS, seed=0, epoch=epoch, number=number)
    assert mixed is not None
    return own, mixed


def soft(mixed: Mixed) -> torch.Tensor:
    """The target that torchvision makes, (B, C)."""
    own, other = (torch.nn.functional.one_hot(labels[0], NUM_CLASSES) for labels in (LABELS, mixed.labels))
    return own * mixed.share + other * (1 - mixed.share)


@pytest.mark.parametrize("number", range(20))
def test_mixup_is_torchvisions(number: int, images: torch.Tensor) -> None:
    own, mixed = mix(MIXUP, images, number=number)
    transform = v2.MixUp(num_classes=NUM_CLASSES)
    params = {"lam": mixed.share, "labels": OWN, "batch_size": 6}
    assert torch.equal(own, transform.transform(images, params))
    torch.testing.assert_close(soft(mixed), transform.transform(OWN, params), check_dtype=False)


@pytest.mark.parametrize("number", range(20))
def test_cutmix_is_torchvisions(number: int, images: torch.Tensor) -> None:
    own, mixed = mix(CUTMIX, images, number=number)
    pasted = (own != images).all(dim=1).any(dim=0)
    rows, columns = pasted.any(dim=1).nonzero().flatten().tolist(), pasted.any(dim=0).nonzero().flatten().tolist()
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else (0, 0, 0, 0)
    transform = v2.CutMix(num_classes=NUM_CLASSES)
    params = {"box": box, "lam_adjusted": mixed.share, "labels": OWN, "batch_size": 6}
    assert torch.equal(own, transform.transform(images, params))
    torch.testing.assert_close(soft(mixed), transform.transform(OWN, params), check_dtype=False)
    assert mixed.share == pytest.approx(1 - pasted.double().mean().item())


def test_boxes_are_drawn_as_torchvision_draws_them() -> None:
    """Whose draws come from the global generator, so that only their distribution can be the same."""
    blank = torch.zeros(2, 3, 24, 32)
    ours = [CUTMIX.mix(blank, LABELS[:, :2], seed=0, epoch=1, number=number) for number in range(2000)]
    torch.manual_seed(0)
    transform = v2.CutMix(num_classes=NUM_CLASSES, alpha=1.0)
    theirs = [transform.make_params([blank])["lam_adjusted"] for _ in range(2000)]
    assert kstest([mixed.share for mixed in ours if mixed], theirs).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    shares = [beta(alpha, uniform) for uniform in (np.arange(500) + 0.5) / 500]
    assert kstest(shares, beta_distribution(alpha, alpha).cdf).statistic < 0.02
    assert 0 <= min(shares) <= max(shares) <= 1


def test_a_coin_says_for_each_batch_which_of_the_two_it_is(images: torch.Tensor) -> None:
    """A pasted image keeps pixels of both; a blended one has none of either."""
    cut = []
    for number in range(300):
        own, mixed = mix(BOTH, images, number=number)
        if 0.01 < mixed.share < 0.99:
            cut.append(bool((own == images).any()))
    assert np.mean(cut) == pytest.approx(0.5, abs=0.12)


def test_every_batch_of_every_epoch_draws_anew(images: torch.Tensor) -> None:
    shares = [mix(MIXUP, images, number=number, epoch=epoch)[1].share for number in range(3) for epoch in (1, 2)]
    assert len(set(shares)) == 6


def test_parts_of_a_batch_keep_what_was_mixed_into_them(images: torch.Tensor) -> None:
    for number in range(10):
        own, mixed = mix(MIXUP, images, number=number)
        parts = Batch(own, LABELS, mixed=mixed).split(4)
        assert [part.num_samples for part in parts] == [2, 2, 1, 1]
        assert torch.equal(torch.cat([part.mixed.labels for part in parts if part.mixed], dim=1), mixed.labels)
        assert {part.mixed.share for part in parts if part.mixed} == {mixed.share}
        dominant = LABELS if mixed.share >= 0.5 else mixed.labels
        assert torch.equal(torch.cat([part.dominant_labels for part in parts], dim=1), dominant)


@pytest.fixture
def batches(make_split: Callable[..., Split]) -> ImageBatches:
    """Images whose label is their position."""
    canvas, normalise = Canvas(size=12, crop=12, interpolation="bilinear"), Normalise((0.5,) * 3, (0.25,) * 3)
    split = load_images(make_split(22, num_classes=22), canvas=canvas, workers=0, memory_bytes=10**9)
    return ImageBatches(
        images=split, size=12, normalise=normalise, batch_size=8, device=torch.device("cpu"), seed=5, mixing=BOTH
    )


def test_training_batches_are_mixed_and_a_resumed_epoch_is_the_same(batches: ImageBatches) -> None:
    whole, plain = (list(each.epoch(3)) for each in (batches, replace(batches, mixing=NO_MIXING)))
    for skip in (1, 2):
        for batch, again in zip(whole[skip:], batches.epoch(3, skip=skip), strict=True):
            assert torch.equal(batch.inputs, again.inputs)
            assert batch.mixed
            assert again.mixed
            assert (batch.mixed.share, batch.mixed.labels.tolist()) == (again.mixed.share, again.mixed.labels.tolist())
    for batch, without in zip(whole, plain, strict=True):
        assert without.mixed is None
        assert torch.equal(batch.labels, without.labels)
        assert not torch.equal(batch.inputs, without.inputs)


def test_evaluation_is_never_mixed(batches: ImageBatches) -> None:
    assert all(batch.mixed is None for batch in replace(batches, seed=None).epoch(0))


def test_the_memory_format_changes_no_bit(batches: ImageBatches) -> None:
    for batch, other in zip(
        batches.epoch(1), replace(batches, memory_format=torch.channels_last).epoch(1), strict=True
    ):
        assert torch.equal(batch.inputs, other.inputs)
        assert other.inputs.is_contiguous(memory_format=torch.channels_last)


def test_balanced_batches_are_of_what_the_sampler_chose(batches: ImageBatches) -> None:
    plain = replace(batches, mixing=NO_MIXING)
    chosen = torch.cat([batch.labels[0] for batch in replace(plain, sampler=balanced).epoch(2)]).tolist()
    assert chosen == balanced(np.arange(22), seed=5, epoch=2).samples.tolist()
    assert chosen != epoch_order(22, seed=5, epoch=2).tolist()
