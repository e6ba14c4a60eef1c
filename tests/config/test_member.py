"""A job becomes plain values, and its run is named by what a person would tell it apart by."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from tl_experiments.config.compose import CONF
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import GROUPS, Member, current_member, plain, run_name
from tl_experiments.config.register import register


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "defaults"),
        (["strategy=finetune", "lr=0.001"], "finetune lr=0.001"),
        (["tracking=none", "tracking.uri=sqlite:////tmp/a.db", "epochs=3"], "epochs=3"),
        (["tracking=none"], "defaults"),
        (["dataset=image_folder", "dataset.root=/home/me/photos/"], "image_folder dataset.root=photos"),
        (["dataset.root=photos"], "dataset.root=photos"),
        (["optimizer.betas=[0.9,0.99]"], "optimizer.betas=[0.9,0.99]"),
        (["+optimizer.more=1"], "+optimizer.more=1"),
    ],
)
def test_a_single_run_is_named_by_what_was_typed(overrides: list[str], name: str) -> None:
    assert run_name(overrides) == name


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["strategy=finetune", "lr=0.001"], "2 finetune lr=0.001"),
        ([], "2"),
        (["backbone.weights=/a/b/mine.pth"], "2 backbone.weights=mine.pth"),
    ],
)
def test_a_job_of_a_sweep_is_named_by_its_index_and_the_values_that_vary(values: list[str], name: str) -> None:
    assert run_name(values, index=2) == name


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Bring Hydra into the state that a running job sees, and return the job's config."""

    def begin(*overrides: str, job: int | None = None) -> DictConfig:
        register()
        where = [
            f"hydra.runtime.output_dir={tmp_path}",
            f"hydra.sweep.dir={tmp_path / 'sweep'}",
            f"hydra.mode={'RUN' if job is None else 'MULTIRUN'}",
            f"hydra.job.num={job or 0}",
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [*overrides, *where], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            config.pop("hydra")
        return config

    yield begin
    HydraConfig.instance().cfg = None


def test_a_job_is_plain_resolved_values(start: Callable[..., DictConfig], tmp_path: Path) -> None:
    member = current_member(start("lr=0.5", "strategy=finetune"))
    assert type(member.config) is dict
    assert type(member.config["optimizer"]) is dict
    assert member.config["optimizer"]["lr"] == 0.5
    assert member.config["strategy"]["batchnorm"] == "train"
    assert member.config["runtime"]["train_precision"] == "auto"
    assert member.folder == tmp_path
    assert (member.name, member.sweep_id) == ("lr=0.5 finetune", None)


def test_the_choices_are_those_of_the_groups(start: Callable[..., DictConfig]) -> None:
    choices = current_member(start("backbone=resnet18", "dataset=cifar10")).choices
    assert (choices["backbone"], choices["dataset"], choices["optimizer"]) == ("resnet18", "cifar10", "adamw")
    assert choices.keys() == set(GROUPS) - {"experiment", "grid"}
    recipe = current_member(start("experiment=cifar10_resnet18")).choices
    assert recipe["experiment"] == "cifar10_resnet18"
    assert recipe["optimizer"] == "sgd"


def test_a_bad_value_is_refused(start: Callable[..., DictConfig]) -> None:
    config = start("lr=-1")
    with pytest.raises(ConfigError, match=r"^lr=-1: "):
        current_member(config)


def test_a_job_of_a_foreign_sweeper_is_named_by_its_index_and_its_overrides(start: Callable[..., DictConfig]) -> None:
    member = current_member(start("strategy=finetune", "lr=1e-4", job=7))
    assert (member.name, member.sweep_id) == ("7 finetune lr=0.0001", None)


@pytest.mark.parametrize("override", ["sweep.resume=latest", "sweep.dry_run=true", "grid=strategies"])
def test_what_is_about_sweeps_needs_one(override: str, start: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match="expected -m beside"):
        current_member(start(override))


def test_the_settings_of_the_sweep_are_no_part_of_a_run(start: Callable[..., DictConfig]) -> None:
    assert "sweep" not in current_member(start("sweep.n_jobs=3")).config
    assert current_member(start()).uid != current_member(start()).uid


def test_enums_become_their_names_and_interpolations_their_values() -> None:
    config = OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": ["${b.c}"]}})
    assert plain(config) == {"a": 1, "b": {"c": 1, "d": [1]}}


def test_the_groups_are_the_folders_of_conf() -> None:
    assert set(GROUPS) | {"hydra"} == {folder.name for folder in CONF.iterdir() if folder.is_dir()}


def test_a_member_is_a_value(make_member: Callable[..., Member]) -> None:
    with pytest.raises(AttributeError):
        make_member().name = "other"  # type: ignore[misc]
