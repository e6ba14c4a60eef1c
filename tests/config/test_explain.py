"""What Hydra refuses is told in one line that names the key, its nearest match and what is expected."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tl_experiments.config.explain import explain, key_owners
from tl_experiments.config.member import Member


@pytest.fixture
def told(make_member: Callable[..., Member]) -> Callable[..., str]:
    """The line that overrides lead to."""

    def tell(*overrides: str) -> str:
        with pytest.raises((HydraException, OmegaConfBaseException, OSError)) as caught:
            make_member(*overrides)
        return explain(caught.value)

    return tell


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lrr=1", "lrr: no such key; did you mean lr?"),
        ("optimizer.momentumm=1", "optimizer.momentumm: no such key; did you mean optimizer.momentum?"),
        ("backbone.imagesize=3", "backbone.imagesize: no such key; did you mean backbone.image_size?"),
        ("qqqqqq=1", "qqqqqq: no such key (python run.py --help lists them)"),
        ("epochs=1.5", "epochs: Value '1.5' of type 'float' was given; expected integer"),
        ("dataset.train_size=x", "dataset.train_size: Value 'x' of type 'str' was given; expected a number or null"),
        ("epochs=null", "epochs: null was given; expected a value"),
        ("runtime.train_precision=bf17", "runtime.train_precision: Invalid value 'bf17', expected one of [auto"),
        ("lr=${nowhere}", "lr: Interpolation key 'nowhere' not found"),
        (
            "optimizer=zzz",
            "optimizer=zzz: no such option; expected one of adam, adamw, rmsprop, schedulefree_adamw, ",
        ),
        ("dataset=image_folder", "dataset.root is missing; give it on the command line: dataset.root=..."),
        ("backbone=timm", "backbone.name is missing; give it on the command line: backbone.name=..."),
    ],
)
def test_one_line_names_the_key_and_what_is_expected(override: str, expected: str, told: Callable[..., str]) -> None:
    line = told(override)
    assert line.startswith(expected)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("override", "nearest"), [("strategy=finetun", "finetune"), ("experiment=cifar10_resnet1", "cifar10_resnet18")]
)
def test_an_option_that_does_not_exist_is_told_with_the_others(
    override: str, nearest: str, told: Callable[..., str]
) -> None:
    line = told(override)
    assert line.startswith(f"{override}: no such option; ")
    assert f"did you mean {nearest}?" in line
    assert "expected one of " in line
    assert "schema" not in line


def test_a_group_that_does_not_exist_is_named(told: Callable[..., str]) -> None:
    assert told("optimiser=sgd").startswith("optimiser: no such")
    assert "optimizer" in told("optimiser=sgd")


@pytest.mark.parametrize(("override", "shown"), [("lr", "'lr'"), ("lr=[1", "'[1'")])
def test_what_cannot_be_parsed_is_shown(override: str, shown: str, told: Callable[..., str]) -> None:
    line = told(override)
    assert "\n" not in line
    assert shown in line


@pytest.mark.parametrize(
    ("override", "owner"),
    [("strategy.backbone_lr_scale=1", "strategy=finetune"), ("optimizer.nesterov=true", "optimizer=sgd")],
)
def test_a_key_of_another_option_is_told_with_its_owner(override: str, owner: str, told: Callable[..., str]) -> None:
    line = told(override)
    assert line.startswith(override.split("=")[0])
    assert owner in line
    assert "did you mean" not in line


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "missing" / "file").write_text("")
    assert explain(caught.value).startswith(f"{tmp_path / 'missing' / 'file'}: No such file or directory; expected")


def test_any_other_error_is_one_line() -> None:
    assert explain(ValueError("first\nsecond")) == "first second"


def test_known_keys_are_those_that_people_type() -> None:
    keys = key_owners()
    assert {"lr", "epochs", "optimizer.momentum", "dataset.root", "backbone.image_size", "tracking.uri"} <= set(keys)
    assert not [key for key in keys if "_target_" in key or "_partial_" in key or "/" in key]
    assert {"finetune", "partial"} < set(keys["strategy.backbone_lr_scale"])
    assert keys["strategy.num_stages"] == ["partial"]


def test_every_owner_of_a_key_is_an_option() -> None:
    conf = Path(__file__).parents[2] / "conf"
    for key, options in key_owners().items():
        assert all((conf / key.partition(".")[0] / f"{option}.yaml").is_file() for option in options), key
