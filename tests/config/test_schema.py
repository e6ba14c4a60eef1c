"""Schema, YAML and signature are one list: a group accepts what its target takes, and each value lives in conf."""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.utils import get_object
from omegaconf import MISSING

from tl_experiments.config.compose import CONF
from tl_experiments.config.register import register
from tl_experiments.config.schema import SCHEMAS

OPTIONS = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name not in ("experiment", "grid"))
OURS = {"_target_", "_partial_"}
SUPPLIED = {  # what the code knows and the config does not
    "backbone": {"preferred_size", "seed"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps", "steps_per_epoch"},
    "tracking": {"run_name", "uid", "parent_uid", "folder", "tags"},
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def defaults_of(path: Path) -> list[str]:
    """The files that an option builds on, its own schema included."""
    return [entry for entry in read(path)["defaults"] if entry != "_self_"]


def schema_of(path: Path) -> str:
    """Follow an option's defaults to its schema's name."""
    [entry] = defaults_of(path)
    if entry.startswith("/schema/"):
        schema, _, package = entry.removeprefix("/schema/").partition("@")
        assert package == "_here_"
        return schema
    return schema_of(path.with_name(f"{entry}.yaml"))


def values_of(path: Path) -> dict[str, Any]:
    """An option's values together with those that it builds on."""
    [entry] = defaults_of(path)
    inherited = {} if entry.startswith("/schema/") else values_of(path.with_name(f"{entry}.yaml"))
    return inherited | {key: value for key, value in read(path).items() if key != "defaults"}


OFFERED = {"dataset": {"watch"}}  # what a target gets if it has such a parameter
NODES = ("early_stopping", "checkpoint", "sweep")  # that are no groups


def fields_of(path: Path) -> set[str]:
    return {field.name for field in fields(SCHEMAS[schema_of(path)])}


def with_target() -> Iterator[Any]:
    for path in OPTIONS:
        if "_target_" in values_of(path):
            yield pytest.param(path, id=name_of(path))


@pytest.mark.parametrize("path", OPTIONS, ids=name_of)
def test_an_option_gives_every_key_of_its_schema_a_value_and_no_other(path: Path) -> None:
    assert values_of(path).keys() == fields_of(path)


@pytest.mark.parametrize("path", OPTIONS, ids=name_of)
def test_an_option_builds_on_a_schema_of_its_own_group(path: Path) -> None:
    assert schema_of(path).split("/")[0] == path.parent.name
    assert read(path)["defaults"][-1] == "_self_"


@pytest.mark.parametrize("path", list(with_target()))
def test_the_keys_are_the_parameters_of_the_target(path: Path) -> None:
    target = values_of(path)["_target_"]
    parameters = inspect.signature(get_object(target)).parameters
    supplied = SUPPLIED.get(path.parent.name, set())
    keys = fields_of(path) - OURS
    assert not keys & supplied
    if target.startswith(("torch.", "schedulefree.")):  # it has more parameters, which keep the library's defaults
        assert keys <= parameters.keys() - supplied
        needed = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
        assert needed <= keys | supplied
    else:
        assert keys | supplied == parameters.keys() - OFFERED.get(path.parent.name, set())
        assert not [p for p in parameters.values() if p.default is not inspect.Parameter.empty]


@pytest.mark.parametrize("path", OPTIONS, ids=name_of)
def test_only_what_the_code_completes_is_partial(path: Path) -> None:
    assert ("_partial_" in values_of(path)) is (path.parent.name in ("optimizer", "scheduler"))
    assert values_of(path).get("_partial_", True) is True


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_has_no_default_of_its_own(name: str) -> None:
    for field in fields(SCHEMAS[name]):
        assert field.default == MISSING, f"{name}.{field.name}: its default lives in conf"
        assert field.default_factory is NO_DEFAULT


def test_every_schema_is_used_and_every_group_of_the_root_has_a_node() -> None:
    assert {schema_of(path) for path in OPTIONS} == SCHEMAS.keys() - {"run", *NODES}
    root = {field.name for field in fields(SCHEMAS["run"])}
    groups = {path.parent.name for path in OPTIONS}
    knobs = {key for key in read(CONF / "config.yaml") if key not in ("defaults", "hydra")}
    assert root == groups | knobs


def test_the_root_takes_groups_before_itself_and_the_recipe_last() -> None:
    defaults = read(CONF / "config.yaml")["defaults"]
    assert defaults[0] == "/schema/run@_global_"
    own = defaults.index("_self_")
    assert defaults[own + 1 : own + 3] == [{"experiment": None}, {"grid": None}]
    assert defaults[own - len(NODES) : own] == [f"/schema/{node}@{node}" for node in NODES]
    assert {key for entry in defaults[1 : own - len(NODES)] for key in entry} == {path.parent.name for path in OPTIONS}
    assert all(key.startswith("override hydra/") for entry in defaults[own + 3 :] for key in entry)


@pytest.mark.parametrize("node", NODES)
def test_a_node_of_the_root_has_the_keys_of_its_schema(node: str) -> None:
    assert read(CONF / "config.yaml")[node].keys() == {field.name for field in fields(SCHEMAS[node])}


def test_optimizers_follow_the_top_level_lr() -> None:
    for path in (CONF / "optimizer").glob("*.yaml"):
        assert read(path)["lr"] == "${lr}", path.name


def test_registering_twice_changes_nothing() -> None:
    register()
    groups = ConfigStore.instance().list("schema")
    register()
    assert ConfigStore.instance().list("schema") == groups


def test_hydra_copies_its_sources_without_all_schemas() -> None:
    register()
    store = ConfigStore.instance()
    copied = copy.deepcopy(store)
    assert copied.repo == store.repo
    assert copied.repo["schema"]["run.yaml"] is store.repo["schema"]["run.yaml"]
    copied.store(name="another", node={})
    assert "another.yaml" not in store.repo
    assert store.load("schema/run.yaml").node is not store.load("schema/run.yaml").node, "what is loaded is one's own"
