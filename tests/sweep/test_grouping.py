"""Jobs share a process where one pass of the backbone serves their heads, and nowhere else."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import SGD, Adam, Optimizer

from tests.conftest import compose_test_member
from tl_experiments.config.member import Member
from tl_experiments.sweep.grouping import group_jobs

MakeMember = Callable[..., Member]
BASE = ("optimizer=sgd", "augmentation=light", "strategy.views=2")  # with views, so that theirs may differ


@pytest.fixture(scope="module")
def make_member(tmp_path_factory: pytest.TempPathFactory) -> MakeMember:
    """Compose a configuration from overrides, once: they are only looked at here."""
    folder = tmp_path_factory.mktemp("members")
    return functools.cache(
        lambda *overrides: compose_test_member(folder / str(len(list(folder.iterdir()))), *overrides)
    )


def own_optimizer(params: Any, *, momentum: float, nesterov: bool, **settings: Any) -> Optimizer:  # noqa: ARG001
    """SGD, or Adam where there is no momentum."""
    return SGD(params, momentum=momentum, **settings) if momentum else Adam(params, **settings)


def groups(*members: Member, max_heads: int = 64) -> tuple[tuple[int, ...], ...]:
    return group_jobs(members, max_heads=max_heads)


@pytest.mark.parametrize(
    "overrides",
    [
        ["lr=0.5"],
        ["seed=1"],
        ["optimizer.momentum=0.5"],
        ["optimizer.weight_decay=0.1"],
        ["optimizer.nesterov=true"],
        ["scheduler=constant"],
        ["scheduler=plateau"],
        ["scheduler.warmup_epochs=0.5"],
        ["lr=0.5", "seed=1", "optimizer.momentum=0.5", "scheduler=step"],
    ],
)
def test_heads_may_differ_in_what_is_their_own(overrides: list[str], make_member: MakeMember) -> None:
    assert groups(make_member(*BASE), make_member(*BASE, *overrides)) == ((0, 1),)


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adam"],
        ["backbone.image_size=32"],
        ["backbone=resnet18"],
        ["dataset.train_size=100"],
        ["dataset.split_seed=1"],
        ["epochs=9"],
        ["batch_size=16"],
        ["strategy.views=3"],
        ["augmentation.rotation_degrees=5"],
        ["runtime.infer_precision=fp32"],
        ["runtime.cache=false"],
        ["label_smoothing=0.1"],
        ["class_weights=auto"],
        ["class_weights={1: 2.0}"],
        ["sampler=balanced"],
    ],
)
def test_heads_that_see_other_features_or_batches_stay_apart(overrides: list[str], make_member: MakeMember) -> None:
    assert groups(make_member(*BASE), make_member(*BASE, *overrides)) == ((0,), (1,))


def test_a_factory_of_ones_own_is_known_by_the_optimizer_that_it_makes(make_member: MakeMember) -> None:
    own = ("optimizer=sgd", "allow_targets=[tests.]", "optimizer._target_=tests.sweep.test_grouping.own_optimizer")
    members = [make_member(*own, f"optimizer.momentum={momentum}") for momentum in (0.9, 0, 0.5)]
    assert groups(*members) == ((0, 2), (1,))


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=finetune"],
        ["augmentation=light"],  # no views: other images in every epoch
        ["strategy.batchnorm=train"],
        ["mixup_alpha=0.2"],  # other images in every epoch
        ["cutmix_alpha=1.0"],
        ["head=mlp"],
        ["head=cosine"],
        ["head.dropout=0.1"],
        ["optimizer._target_=torch.optim.Adamax"],
        ["optimizer._target_=torch.optim.NAdam"],
    ],
)
def test_jobs_whose_backbone_runs_in_every_epoch_or_whose_optimizer_has_no_rule_stay_apart(
    overrides: list[str], make_member: MakeMember
) -> None:
    assert groups(make_member(*overrides), make_member(*overrides, "lr=0.5")) == ((0,), (1,))
    assert groups(make_member(), make_member("lr=0.5")) == ((0, 1),)


def test_a_seed_that_draws_the_backbone_keeps_jobs_apart(make_member: MakeMember) -> None:
    first, rate, seed = (
        make_member("backbone.weights=null", *more) for more in ([], ["lr=0.5"], ["seed=1"])
    )  # fmt: skip
    assert groups(first, rate, seed) == ((0, 1), (2,))


@pytest.mark.parametrize(
    ("max_heads", "expected"),
    [
        (1, ((0,), (1,), (2,), (3,), (4,))),
        (2, ((0, 1), (2, 3), (4,))),
        (4, ((0, 1, 2, 3), (4,))),
        (5, ((0, 1, 2, 3, 4),)),
    ],
)
def test_no_group_is_larger_than_is_wanted(
    max_heads: int, expected: tuple[tuple[int, ...], ...], make_member: MakeMember
) -> None:
    members = [make_member(f"seed={seed}") for seed in range(5)]
    assert groups(*members, max_heads=max_heads) == expected


def test_every_job_is_in_one_group_in_the_order_of_the_plan(make_member: MakeMember) -> None:
    kinds = (["strategy=finetune"], [], ["optimizer=sgd"], ["batch_size=16"])
    members = [make_member(*kind, f"seed={seed}") for seed in range(3) for kind in kinds]
    found = groups(*members, max_heads=2)
    assert found == ((0,), (1, 5), (2, 6), (3, 7), (4,), (8,), (9,), (10,), (11,))
    assert sorted(position for group in found for position in group) == list(range(len(members)))
    assert groups() == ()
