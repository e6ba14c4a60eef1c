"""What a configuration names is built, or refused in one line before anything is read."""

from collections.abc import Callable

import pytest
import torch

from tests.watching import Notes
from tl_experiments import build
from tl_experiments.build.ground import keeps_features
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.data.augmentation import Augmentation
from tl_experiments.engine.loss import Loss
from tl_experiments.runtime.errors import SettingError

MakeMember = Callable[..., Member]


class Mine(Augmentation):
    """An augmentation of the user's own."""


@pytest.mark.parametrize(
    ("group", "target", "told"),
    [
        ("strategy", "tl_experiments.strategies.base.torch.hub.load", "leads to torch.hub, which is not allowed"),
        ("tracking", "tl_experiments.tracking.run_log.time.sleep", "leads to time, which is not allowed"),
        ("dataset", "tl_experiments.data.folder_scan.Path", "leads to pathlib, which is not allowed"),
        ("optimizer", "torch.optim.adam.torch.load", "leads to torch.serialization, which is not allowed"),
        ("scheduler", "tl_experiments.engine.schedulers.math.sqrt", "leads to math, which is not allowed"),
        ("strategy", "tl_experiments.strategies.base", "leads to None, which is not allowed"),
        ("strategy", "tl_experiments.strategies.base.batchnorm_modules", "expected what makes Strategy"),
        ("strategy", "tl_experiments.strategies.base.Workload", "expected what makes Strategy"),
        ("tracking", "tl_experiments.tracking.address.absolute_uri", "expected what makes Tracker"),
        ("tracking", "tl_experiments.tracking.run_log.RunLog", "expected what makes Tracker"),
        ("backbone", "tl_experiments.models.weights.read_weights", "expected what makes Backbone"),
        ("dataset", "tl_experiments.data.folder_scan.Path.unlink", "leads to pathlib, which is not allowed"),
        ("dataset", "tl_experiments.data.hashing.nothing", "there is no such thing to call"),
        ("augmentation", "tl_experiments.data.augmentation.apply", "expected what makes Augmentation"),
        ("optimizer", "torch.optim.swa_utils.get_swa_avg_fn", "expected what makes Optimizer"),
        ("optimizer", "torch.optim.Optimizer.load_state_dict", "expected what makes Optimizer"),
        ("scheduler", "tl_experiments.engine.schedulers.OneCycleLR", "leads to torch.optim.lr_scheduler, which"),
        ("scheduler", "tl_experiments.engine.schedulers.Schedule", "does not take the keys"),
    ],
)
def test_a_target_that_begins_well_and_ends_elsewhere_is_refused(
    group: str, target: str, told: str, make_member: MakeMember
) -> None:
    member = make_member(f"{group}._target_={target}")
    with pytest.raises(ConfigError, match=rf"^{group}.*{target}.*{told}"):
        build.check_buildable(member)


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


def test_a_scheduler_that_does_not_fit_is_told_before_anything_is_read(make_member: MakeMember) -> None:
    member = make_member("scheduler=step", "scheduler._target_=tl_experiments.engine.schedulers.cosine")
    with pytest.raises(ConfigError, match=r"^scheduler: .* does not take the keys that are given: "):
        build.build_scheduler(member)


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
        (["augmentation=trivial", "strategy.views=2"], True, False),
        (["allow_targets=[tests.]", "augmentation._target_=tests.test_build.Mine", "strategy.views=2"], False, True),
        (["allow_targets=[own.]", "backbone._target_=own.backbone", "strategy=finetune"], False, False),
    ],
)
def test_features_of_code_whose_changes_nobody_knows_are_not_kept(
    overrides: list[str], keeps: bool, told: bool, make_member: MakeMember
) -> None:
    notes, member = Notes(), make_member(*overrides)
    strategy = build.build_strategy(member)
    assert keeps_features(member, strategy=strategy, watch=notes) is keeps
    assert [" was changed" in note for note in notes.notices] == [True] * told


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


def test_a_weight_of_no_class_is_told_once_the_dataset_is_known(make_member: MakeMember) -> None:
    member = make_member("class_weights={0: 2.0, eleven: 3.0}")
    with pytest.raises(
        SettingError, match=r"^class_weights: the dataset has no class eleven; the 10 classes are 0, 1, "
    ):
        build.build_dataset(member)


def test_the_loss_is_what_was_asked_for(make_member: MakeMember) -> None:
    def loss(*overrides: str) -> Loss:
        member = make_member("backbone.image_size=32", *overrides)
        dataset = build.build_dataset(member)
        backbone = build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member))
        images = build.build_images(member, dataset=dataset, backbone=backbone, watch=Notes())
        return build.build_loss(member, dataset=dataset, images=images, device=torch.device("cpu"))

    assert loss() == Loss()
    named = loss("class_weights={3: 2.5}", "label_smoothing=0.1")
    assert named.label_smoothing == 0.1
    assert named.class_weights is not None
    assert named.class_weights.tolist() == [1.0, 1.0, 1.0, 2.5, *[1.0] * 6]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("label_smoothing=0.1", "label_smoothing=0.1: strategy=knn takes no gradient steps, for which it is; "),
        ("class_weights=auto", "class_weights=auto: .* expected class_weights=null$"),
        ("sampler=balanced", "sampler=balanced: .* expected sampler=shuffle$"),
        ("mixup_alpha=0.2", "mixup_alpha=0.2: "),
        ("cutmix_alpha=1.0", "cutmix_alpha=1.0: "),
        ("ema_decay=0.9", "ema_decay=0.9: .* expected ema_decay=null$"),
        ("early_stopping.patience=3", "early_stopping.patience=3: "),
        ("head=mlp", "head=mlp: strategy=knn decides the head itself; expected head=linear$"),
        ("head.dropout=0.1", "head.dropout=0.1: "),
        ("lr=auto", "lr=auto: "),
    ],
)
def test_what_gradient_steps_would_do_is_refused_where_none_are_taken(
    override: str, told: str, make_member: MakeMember
) -> None:
    build.check_buildable(make_member(override))
    with pytest.raises(ConfigError, match=r"^.*: strategy=logistic "):
        build.check_buildable(make_member("strategy=logistic", override))
    with pytest.raises(ConfigError, match=f"^{told}"):
        build.check_buildable(make_member("strategy=knn", override))


def test_mirror_images_are_refused_where_they_are_another_class(make_member: MakeMember) -> None:
    member = make_member("tta=flip")
    with pytest.raises(ConfigError, match=r"^tta=flip: a mirror image of digits .* expected tta=none$"):
        build.sees_mirrors(member, dataset=build.build_dataset(member))
