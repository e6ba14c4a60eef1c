"""A head in a bank is the head that it would be alone."""

import pytest
import torch
import torch.nn.functional as F

from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.heads import HeadBank

SEEDS = (5, 0, 2**63 - 1)


def make_bank(seeds: tuple[int, ...] = SEEDS) -> HeadBank:
    return HeadBank(feature_dim=40, num_classes=7, seeds=seeds)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))


def test_a_head_begins_with_the_bits_that_it_has_alone() -> None:
    bank = make_bank()
    for member, seed in enumerate(SEEDS):
        single = linear_head(feature_dim=40, num_classes=7, seed=seed)
        assert torch.equal(bank.weight[member], single.weight)
        assert torch.equal(bank.bias[member], single.bias)
        assert torch.equal(bank.head(member).weight, single.weight)
        assert torch.equal(bank.head(member).bias, single.bias)


def test_a_head_depends_on_its_seed_alone() -> None:
    state = torch.get_rng_state()
    bank = make_bank((3, 4, 3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(make_bank((3, 4, 3)).weight, bank.weight)
    assert torch.equal(bank.weight[0], bank.weight[2])
    assert not torch.equal(bank.weight[0], bank.weight[1])


def test_a_head_begins_as_pytorchs_own_linear_layer() -> None:
    torch.manual_seed(5)
    linear = torch.nn.Linear(40, 7)
    assert torch.equal(linear_head(feature_dim=40, num_classes=7, seed=5).weight, linear.weight)


def test_the_bank_computes_what_its_heads_compute(features: torch.Tensor) -> None:
    bank = make_bank()
    logits = bank(features)
    assert (logits.shape, bank.num_members) == ((3, 16, 7), 3)
    for member in range(3):
        torch.testing.assert_close(logits[member], bank.head(member)(features[member]))


def test_members_may_share_their_features(features: torch.Tensor) -> None:
    bank = make_bank()
    shared = bank(features[0].expand(3, -1, -1))
    torch.testing.assert_close(shared, bank(features[:1].repeat(3, 1, 1)))


def train(bank: HeadBank, features: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(bank.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        logits = bank(features)
        sum(F.cross_entropy(logits[member], labels[member]) for member in range(bank.num_members)).backward()
        optimizer.step()


def test_what_one_member_learns_does_not_move_another(features: torch.Tensor) -> None:
    labels = torch.arange(16).expand(3, -1) % 7
    others = features.clone()
    others[1] *= 3
    relabelled = labels.clone()
    relabelled[1] = 0
    first, second = make_bank(), make_bank()
    train(first, features, labels)
    train(second, others, relabelled)
    for member in (0, 2):
        assert torch.equal(first.weight[member], second.weight[member])
        assert torch.equal(first.bias[member], second.bias[member])
    assert not torch.equal(first.weight[1], second.weight[1])


def test_a_loss_of_one_member_has_no_gradient_for_another(features: torch.Tensor) -> None:
    bank = make_bank()
    bank(features)[1].square().sum().backward()
    assert [bool(gradient.any()) for gradient in bank.weight.grad] == [False, True, False]
    assert [bool(gradient.any()) for gradient in bank.bias.grad] == [False, True, False]


def test_a_single_head_shares_its_storage_with_the_bank(features: torch.Tensor) -> None:
    bank = make_bank()
    head = bank.head(1)
    before = head.weight.detach().clone()
    assert head.weight.data_ptr() == bank.weight[1].data_ptr()
    train(bank, features, torch.arange(16).expand(3, -1) % 7)
    assert not torch.equal(head.weight, before)
    assert torch.equal(head.weight, bank.weight[1])
    assert torch.equal(head.bias, bank.bias[1])
    assert (head.in_features, head.out_features) == (40, 7)


def test_heads_compute_in_float32_under_autocast_too(features: torch.Tensor) -> None:
    bank = make_bank()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = bank(features)
        rounded = bank(features.bfloat16())
    assert logits.dtype == rounded.dtype == torch.float32
    assert torch.equal(logits, bank(features))
    assert torch.equal(rounded, bank(features.bfloat16().float()))
