"""What a configuration names is built, or refused in one line before anything is read."""

from collections.abc import Callable

import pytest

from tests.watching import Notes
from tl_experiments import build
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member

MakeMember = Callable[..., Member]


@pytest.mark.parametrize(
    "target", ["tl_experiments.runtime.fingerprint.subprocess.run", "tl_experiments.config.checks.os.system"]
)
def test_a_target_that_begins_well_and_ends_elsewhere_is_refused(target: str, make_member: MakeMember) -> None:
    member = make_member(f"strategy._target_={target}")
    with pytest.raises(ConfigError, match=rf"^strategy\._target_={target}: leads to "):
        build.build_strategy(member)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizer._target_=torch.optim.Nothing"], "optimizer._target_=torch.optim.Nothing: "),
        (
            ["optimizer._target_=torch.optim.LBFGS"],
            "optimizer: torch.optim.LBFGS does not take the keys that are given: ",
        ),
        (["optimizer._target_=torch.optim.swa_utils.get_swa_avg_fn"], "optimizer"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_told_before_anything_is_read(
    overrides: list[str], told: str, make_member: MakeMember
) -> None:
    member = make_member(*overrides)
    with pytest.raises(ConfigError) as caught:
        build.build_optimizer(member)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("torch.optim.lr_scheduler.CosineAnnealingLR", "scheduler: .* does not take the keys that are given: "),
        ("tl_experiments.data.transforms.canvas_size", "scheduler: .* does not take the keys that are given: "),
    ],
)
def test_a_scheduler_that_does_not_fit_is_told_before_anything_is_read(
    target: str, told: str, make_member: MakeMember
) -> None:
    with pytest.raises(ConfigError, match=told):
        build.build_scheduler(make_member(f"scheduler._target_={target}"))


def test_a_defect_inside_a_target_comes_out_as_it_is(make_member: MakeMember, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise TypeError("unsupported operand")

    monkeypatch.setattr("tl_experiments.data.digits._source", broken)
    with pytest.raises(TypeError, match=r"^unsupported operand$"):
        build.build_dataset(make_member())


@pytest.mark.parametrize(
    ("overrides", "keeps", "told"),
    [
        ([], True, False),
        (["runtime.cache=false"], False, False),
        (["allow_targets=[own.]", "backbone._target_=own.backbone"], False, True),
        (["allow_targets=[own.]", "backbone._target_=own.backbone", "strategy=finetune"], False, False),
    ],
)
def test_features_of_code_whose_changes_nobody_knows_are_not_kept(
    overrides: list[str], keeps: bool, told: bool, make_member: MakeMember
) -> None:
    notes, member = Notes(), make_member(*overrides)
    strategy = build.build_strategy(member)
    augmentation = build.build_augmentation(member, dataset=build.build_dataset(member))
    assert build.keeps_features(member, strategy=strategy, augmentation=augmentation, watch=notes) is keeps
    assert ["own.backbone was changed" in note for note in notes.notices] == [True] * told


@pytest.mark.parametrize(
    ("backbone", "num_stages"),
    [("efficientnet_lite0", 5), ("resnet18", 4), ("vgg16", 6), ("inception_v3", 5), ("vit_b_16", 12)],
)
def test_more_stages_than_there_are_is_told_before_anything_is_made(
    backbone: str, num_stages: int, make_member: MakeMember
) -> None:
    strategy = (f"backbone={backbone}", "strategy=partial")
    build.check_buildable(make_member(*strategy, f"strategy.num_stages={num_stages - 1}"))
    with pytest.raises(ConfigError, match=f"{backbone} has {num_stages} stages; expected 1 to {num_stages - 1}, or "):
        build.check_buildable(make_member(*strategy, f"strategy.num_stages={num_stages}"))
