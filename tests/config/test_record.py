"""A run's own config.yaml is data: read as it was written, or refused in one line, and it never says what may run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.record import read_record


@pytest.fixture
def record(make_member: Callable[..., Member]) -> dict[str, Any]:
    """The values of a run as it writes them, to be spoilt."""
    return make_member("tracking=mlflow", "strategy=finetune").config


@pytest.fixture
def told(tmp_path: Path) -> Callable[[Any], list[str]]:
    """The lines with which a text, or values written as YAML, are refused, without the path that each begins with."""

    def refuse(content: Any, *, allow_targets: list[str] | None = None) -> list[str]:
        path = tmp_path / "config.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            read_record(path, allow_targets=allow_targets or [])
        lines = str(caught.value).splitlines()
        assert all(line.startswith(f"{path}: ") for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]

    return refuse


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["tracking=mlflow", "strategy=partial", "optimizer=rmsprop", "scheduler=onecycle"],
        ["dataset=cifar10", "backbone=resnet18", "augmentation=standard", "dataset.train_size=0.5"],
        ["augmentation=trivial", "augmentation.erase_prob=0.25"],
        ["augmentation=randaugment", "augmentation.num_ops=3", "augmentation.magnitude=12"],
        ["optimizer=adam", "optimizer.eps=1e-7", "strategy.batchnorm=train", "epochs=3", "seed=12"],
    ],
)
def test_what_a_run_was_given_comes_back_unchanged(
    overrides: list[str], make_member: Callable[..., Member], tmp_path: Path
) -> None:
    config = make_member(*overrides).config
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    read = read_record(path, allow_targets=[])
    assert read == config
    assert {key: type(value) for key, value in read["optimizer"].items()} == {
        key: type(value) for key, value in config["optimizer"].items()
    }


def test_what_may_run_is_said_by_the_caller_alone(
    record: dict[str, Any], told: Callable[..., list[str]], tmp_path: Path
) -> None:
    record |= {"allow_targets": ["mine."], "strategy": {**record["strategy"], "_target_": "mine.Strategy"}}
    [line] = told(record)
    assert line.startswith("strategy._target_=mine.Strategy: not an allowed target; ")
    read = read_record(tmp_path / "config.yaml", allow_targets=["mine."])
    assert read["strategy"]["_target_"] == "mine.Strategy"
    assert read["allow_targets"] == ["mine."]


def test_code_of_ones_own_may_take_more_keys_than_ours(record: dict[str, Any], told: Callable[..., list[str]]) -> None:
    record["strategy"]["more"] = [1, 2]
    assert told(record) == ["strategy: not the keys of any of its options (unknown: more)"]
    record["strategy"]["_target_"] = "mine.Strategy"
    assert told(record)[0].startswith("strategy._target_=mine.Strategy: not an allowed target")


def test_what_a_command_was_told_is_no_part_of_a_run(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**record, "sweep": {"resume": "../x", "_target_": "os.system"}, "resume": "/etc"}))
    assert read_record(path, allow_targets=[]) == record


LAUGHS = "a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no keys with values; expected the config.yaml of a run"),
        ("[1, 2]", "holds no keys with values; expected the config.yaml of a run"),
        ("a: [", "cannot be read as YAML: "),
        ("lr: !!python/object/apply:os.system [id]", "cannot be read as YAML: could not determine a constructor"),
        ("lr: " + "9" * 5000, "cannot be read as YAML: "),
        ("day: 2020-13-45", "cannot be read as YAML: month must be in 1..12"),
        (LAUGHS, "has anchors or aliases (& or *); expected each value written out"),
        ("a: &a [*a]", "has anchors or aliases"),
        ("a: " + "[" * 5000, "larger or deeper than any configuration"),
        ("a: [" + "1," * 30_000 + "]", "larger or deeper than any configuration"),
        ("# " + "x" * 1_000_001, "larger than 1000000 bytes; expected"),
        ("lr: 2020-01-01", "lr=2020-01-01: expected text, a number, true, false or null"),
        ("lr: !!binary aGVsbG8=", "lr=b'hello': expected text"),
        ("1: 2", "1: expected keys that are names"),
        ("lr: ${oc.env:HOME}", "lr='${oc.env:HOME}': interpolations are not resolved here"),
        ("a: [{b: '${lr}'}]", "a[0].b='${lr}': interpolations are not resolved here"),
    ],
)
def test_a_document_that_is_no_record_is_refused(text: str, line: str, told: Callable[..., list[str]]) -> None:
    [found] = told(text)
    assert found.startswith(line)
    assert len(found) < 500


def test_nothing_but_a_file_is_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match=rf"^{path}: no such file; expected the config.yaml of a run$"):
            read_record(path, allow_targets=[])
    (tmp_path / "latin.yaml").write_bytes("name: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_record(tmp_path / "latin.yaml", allow_targets=[])


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        ({"lr": "abc"}, ["lr=abc: expected a number above 0, or auto"]),
        ({"lr": {"a": 1}}, ["lr={'a': 1}: expected a number above 0, or auto"]),
        ({"lr": None}, ["lr=None: expected a number above 0, or auto"]),
        ({"lr": "???"}, ["lr is missing"]),
        ({"lr": float("nan"), "optimizer.lr": float("nan")}, ["lr=nan: expected a number above 0"]),
        ({"epochs": 1.5}, ["epochs: Value '1.5' of type 'float' was given; expected integer"]),
        ({"epochs": 0, "batch_size": -3}, ["epochs=0: expected 1 to 1000000", "batch_size=-3: expected 1 to 65536"]),
        ({"seed": 2**70}, ["seed=1180591620717411303424: expected from 0"]),
        ({"lrr": 1}, ["lrr: no such key in the configuration of a run"]),
        ({"hydra": {"job_logging": {}}}, ["hydra: no such key"]),
        ({"optimizer": [1]}, ["optimizer=[1]: expected keys with values"]),
        ({"optimizer.betas": 3}, ["optimizer.betas: "]),
        ({"optimizer.betas": [0.9, 1.0]}, ["optimizer.betas=[0.9, 1.0]: expected two numbers"]),
        ({"optimizer.momentum": 0.9}, ["optimizer: not the keys of any of its options (unknown: momentum)"]),
        ({"runtime.sleep": 9}, ["runtime: not the keys of any of its options (unknown: sleep)"]),
        ({"runtime.train_precision": "fp8"}, ["runtime.train_precision: Invalid value 'fp8'"]),
        ({"strategy._target_": "os.system"}, ["strategy._target_=os.system: not an allowed target; expected tl_exp"]),
        ({"strategy._target_": 5}, ["strategy._target_=5: not an allowed target"]),
        ({"dataset.root": {"_target_": "os.system"}}, ["dataset: not the keys"]),
    ],
)  # fmt: skip
def test_a_value_that_could_not_be_typed_cannot_be_read_either(
    spoil: dict[str, Any], lines: list[str], record: dict[str, Any], told: Callable[..., list[str]]
) -> None:
    for key, value in spoil.items():
        group, _, leaf = key.rpartition(".")
        (record[group] if group else record)[leaf] = value
    found = told(record)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found


def test_what_is_missing_is_named(record: dict[str, Any], told: Callable[..., list[str]]) -> None:
    del record["optimizer"]["eps"]
    assert told(record) == ["optimizer: not the keys of any of its options (missing: eps)"]
    del record["optimizer"], record["lr"]
    assert told(record)[0].startswith("lr, optimizer: missing; expected the config.yaml of a run")
