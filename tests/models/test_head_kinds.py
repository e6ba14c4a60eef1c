"""Each kind of head computes what its paper says, begins as its seed says, and drops out while it trains alone."""

from typing import Any

import pytest
import torch
from torch import nn

from tl_experiments.models.head_kinds import Cosine, HeadKind, Linear, Mlp
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import all_parts, param_groups

KINDS: dict[str, HeadKind] = {
    "linear": Linear(dropout=0.0),
    "linear, dropout": Linear(dropout=0.5),
    "mlp": Mlp(hidden_dim=9, dropout=0.5),
    "cosine": Cosine(scale=8.0, learn_scale=True, dropout=0.5),
    "cosine, fixed": Cosine(scale=8.0, learn_scale=False, dropout=0.0),
}
NAMES = {
    "linear": {"weight", "bias"},
    "linear, dropout": {"weight", "bias"},
    "mlp": {"hidden.weight", "hidden.bias", "output.weight", "output.bias"},
    "cosine": {"weight", "scale"},
    "cosine, fixed": {"weight", "scale"},
}


def make(name: str, seed: int = 0) -> Any:
    return KINDS[name].make(feature_dim=6, num_classes=4, seed=seed)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", KINDS)
def test_a_head_is_a_function_of_its_seed(name: str, features: torch.Tensor) -> None:
    state = torch.get_rng_state()
    head, again, other = make(name), make(name), make(name, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert head.state_dict().keys() == NAMES[name]
    assert torch.equal(head.eval()(features), again.eval()(features))
    assert not torch.equal(head(features), other.eval()(features))
    assert head(features).shape == (5, 4)


def test_only_a_linear_head_without_dropout_joins_a_bank() -> None:
    assert [name for name, kind in KINDS.items() if kind.joins_bank] == ["linear"]
    assert type(make("linear")) is nn.Linear


def test_dropout_before_a_linear_head_is_that_of_a_sequence(features: torch.Tensor) -> None:
    head, plain = make("linear, dropout"), make("linear")
    assert torch.equal(head.eval()(features), plain(features))
    torch.manual_seed(3)
    dropped = head.train()(features)
    torch.manual_seed(3)
    assert torch.equal(dropped, nn.Sequential(nn.Dropout(0.5), plain)(features))


def test_an_mlp_is_linear_relu_dropout_linear(features: torch.Tensor) -> None:
    head = make("mlp")
    sequence = nn.Sequential(head.hidden, nn.ReLU(), nn.Dropout(0.5), head.output)
    torch.manual_seed(3)
    dropped = head(features)
    torch.manual_seed(3)
    assert torch.equal(dropped, sequence(features))


@pytest.mark.parametrize("name", ["cosine", "cosine, fixed"])
def test_logits_of_a_cosine_head_are_scaled_cosines_whatever_the_lengths(name: str, features: torch.Tensor) -> None:
    head = make(name).eval()
    cosines = nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), 8.0 * cosines)
    torch.testing.assert_close(head(features * 100), head(features))
    head(features).sum().backward()
    assert (name == "cosine") is ("scale" in dict(head.named_parameters()))
    if name == "cosine":
        assert head.scale.grad.item() == pytest.approx(cosines.sum().item(), rel=1e-4)


def test_biases_and_the_scale_do_not_decay() -> None:
    for name in ("mlp", "cosine"):
        groups = param_groups(model := Model(nn.Identity(), make(name)), all_parts(model), has_member_axis=False)
        decaying = {own for group in groups if group.weight_decay for own in group.param_names}
        assert decaying == ({"head.hidden.weight", "head.output.weight"} if name == "mlp" else {"head.weight"})
