"""Folding BatchNorm into convolutions changes how features are computed, and not what they are."""

import copy
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

from tl_experiments.models.efficientnet_lite0 import efficientnet_lite0
from tl_experiments.models.folding import folded
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.models.torchvision_backbones import torchvision_backbone

Network = TypeVar("Network", bound=nn.Module)
SIZE = 32
TOLERANCE = 1e-5  # of the largest feature: what rounding in another order explains


def make_images(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def live(network: Network) -> Network:
    """Give every BatchNorm statistics, weights and biases that matter, as training does."""
    generator = torch.Generator().manual_seed(1)
    for norm in norms(network):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) * 0.3)
        norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
        with torch.no_grad():
            norm.weight.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
            norm.bias.copy_(torch.randn(norm.num_features, generator=generator) * 0.3)
    return network.eval()


def norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def pretrained() -> nn.Module:
    return efficientnet_lite0(
        name="efficientnet_lite0", weights="default", image_size=SIZE, preferred_size=None, seed=0
    ).eval()


def resnet18() -> nn.Module:
    return live(torchvision_backbone(name="resnet18", weights=None, image_size=SIZE, preferred_size=None, seed=0))


def with_activations_in_norms() -> nn.Module:
    return live(timm_backbone(name="test_efficientnet", weights=None, image_size=SIZE, preferred_size=None, seed=0))


@torch.no_grad()
def largest_difference(network: nn.Module, other: nn.Module) -> float:
    """On images that were not the example, as a share of the largest output."""
    images = make_images(5, seed=7)
    expected = network(images)
    return float((other(images) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("make", [pretrained, resnet18, with_activations_in_norms])
def test_a_backbone_without_its_norms_gives_the_same_features(make: Callable[[], nn.Module]) -> None:
    network = make()
    assert len(norms(network)) >= 13
    lighter = folded(network, make_images(1))
    assert norms(lighter) == []
    assert 0 < largest_difference(network, lighter) < TOLERANCE


@pytest.mark.parametrize("make", [pretrained, resnet18])
def test_the_original_stays_as_it_was(make: Callable[[], nn.Module]) -> None:
    network = make()
    before = copy.deepcopy(network.state_dict())
    lighter = folded(network, make_images(1))
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert norms(network)
    assert not {id(parameter) for parameter in lighter.parameters()} & {id(p) for p in network.parameters()}
    assert not any(module._forward_hooks for module in [*network.modules(), *lighter.modules()]), "hooks are removed"


class Small(nn.Module):
    """A convolution, a norm and what follows; subclasses use them otherwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.other_norm = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(images)).relu()


class OutputIsUsedElsewhere(Small):
    """A residual around the norm: the convolution's own output is added again."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        between = self.first(images)
        return self.norm(between).relu() + between


class OutputHasTwoNorms(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        between = self.first(images)
        return self.norm(between).relu() + self.other_norm(between).sigmoid()


class ConvIsUsedTwice(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.other_norm(self.second(self.norm(self.first(self.first(images))).relu()))


class NormIsUsedTwice(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(self.norm(self.first(images)).relu()))


class SomethingLiesBetween(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(images).relu())


class NormComesFirst(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.first(self.norm(images))


class WeightsAreShared(Small):
    """Two convolutions with one weight: only the first is followed by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.second.weight = self.first.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(images)).relu())


def test_the_small_network_is_folded_at_all() -> None:
    network = live(Small())
    assert len(norms(folded(network, make_images(1)))) == 1, "the one that is not used"
    assert largest_difference(network, folded(network, make_images(1))) < TOLERANCE


@pytest.mark.parametrize(
    "kind",
    [
        OutputIsUsedElsewhere,
        OutputHasTwoNorms,
        ConvIsUsedTwice,
        NormIsUsedTwice,
        SomethingLiesBetween,
        NormComesFirst,
        WeightsAreShared,
    ],
)
def test_a_network_that_cannot_be_folded_gives_the_same_outputs(kind: type[Small]) -> None:
    network = live(kind())
    assert largest_difference(network, folded(network, make_images(1))) < TOLERANCE


def test_a_convolution_that_is_used_twice_is_left_alone_and_others_are_folded() -> None:
    network = live(ConvIsUsedTwice())
    lighter = folded(network, make_images(1))
    assert isinstance(lighter, ConvIsUsedTwice)
    assert torch.equal(lighter.first.weight, network.first.weight)
    assert isinstance(lighter.norm, nn.BatchNorm2d)
    assert not isinstance(lighter.other_norm, nn.BatchNorm2d)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 0.1)])
def test_a_convolution_without_bias_gets_one(bf16: bool, tolerance: float) -> None:
    network = live(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    lighter = folded(network, make_images(1))
    assert isinstance(lighter, nn.Sequential)
    assert lighter[0].bias is not None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        outputs, expected = (module(make_images(2)).float() for module in (lighter, network))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=tolerance)
