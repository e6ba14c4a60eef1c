"""What the environment holds reaches two paths and nothing else, on whatever way it is asked for."""

from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from tl_experiments.config.environment import require_no_secrets
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_SECRET", "7")


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"a": "${oc.env:TL_SECRET}"}, ["a"]),
        ({"a": "x ${oc.env:TL_SECRET} y"}, ["a"]),
        ({"a": "${oc.env:NOT_THERE,5}"}, ["a"]),
        ({"a": {"b": ["${oc.decode:${oc.env:TL_SECRET}}"]}}, ["a.b[0]"]),
        ({"a": "${oc.${b}:TL_SECRET}", "b": "env"}, ["a"]),
        ({"a": "${dataset.root}", "dataset": {"root": "${oc.env:TL_SECRET}"}}, ["a"]),
        ({"a": "${oc.select:dataset.root}", "dataset": {"root": "${oc.env:TL_SECRET}"}}, ["a"]),
        ({"a": "${dataset}", "dataset": {"root": "${oc.env:TL_SECRET}"}}, ["a.root"]),
        ({"dataset": {"root": "${oc.env:TL_SECRET}", "name": "${oc.env:TL_SECRET}"}}, ["dataset.name"]),
        ({"a": "${oc.env:TL_SECRET}", "b": 1, "c": "${oc.env:TL_SECRET}"}, ["a", "c"]),
    ],
)
def test_a_value_from_the_environment_is_named(config: dict[str, object], keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        require_no_secrets(OmegaConf.create(config))
    lines = str(caught.value).splitlines()
    assert [line.partition(": takes a value from the environment")[0] for line in lines] == keys
    assert "7" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"dataset": {"root": "${oc.env:TL_SECRET}/x"}, "backbone": {"weights": "${oc.env:TL_SECRET}"}},
        {"a": "${b}", "b": "oc.env:TL_SECRET"},
        {"a": "${oc.decode:'5'}", "b": "???", "c": "time: ${b}"},
    ],
)
def test_other_interpolations_pass(config: dict[str, object]) -> None:
    require_no_secrets(OmegaConf.create(config))


def test_afterwards_the_environment_answers_again() -> None:
    config = OmegaConf.create({"a": "${oc.env:TL_SECRET}"})
    with pytest.raises(ConfigError):
        require_no_secrets(config)
    assert config.a == "7"


def test_a_run_is_checked_before_its_values_are_used(make_member: Callable[..., Member]) -> None:
    with pytest.raises(ConfigError, match=r"^seed: takes a value from the environment, which records would show"):
        make_member("seed='${oc.decode:${oc.env:TL_SECRET}}'")
    member = make_member("dataset=cifar10", "dataset.root=/data/${oc.env:TL_SECRET}")
    assert member.config["dataset"]["root"] == "/data/7"
