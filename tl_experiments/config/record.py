"""A run's own `config.yaml`, read back: data from anywhere, trusted no more than what a stranger types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tl_experiments.config.checks import check_values
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import explain
from tl_experiments.config.member import plain
from tl_experiments.config.schema import SCHEMAS, Run
from tl_experiments.config.targets import HOMES

MOST_BYTES = 1_000_000
MOST_EVENTS = 20_000  # of the parser, some four for each key; a record has about a hundred keys
DEEPEST = 20
OF_THE_COMMAND = ("sweep", "resume")  # what a command is told is no part of a run
KEYS = tuple(item.name for item in fields(Run) if item.name not in OF_THE_COMMAND)


def read_record(path: Path, *, allow_targets: Sequence[str]) -> dict[str, Any]:
    """Return the checked configuration of a run as plain values.

    Nothing in the file is resolved, imported or called. Which code is allowed is not for the file to say.

    Args:
        path: of the `config.yaml` that a run has written.
        allow_targets: prefixes of the caller's own code; those that the file names do not count.

    Raises:
        ConfigError: one line per problem, each with the path before it.
    """
    try:
        return checked_record(_parse(_read(path)), allow_targets=allow_targets)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def read_values(path: Path) -> dict[str, Any]:
    """Return the configuration of a run, of this version or another, as it stands there: to be shown, never run.

    Raises:
        ConfigError: it cannot be read, or is more than plain values under names.
    """
    try:
        values = _parse(_read(path))
        if problems := list(_strange_values(values)):
            raise ConfigError(problems[0])
        return values
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def checked_record(values: Mapping[str, Any], *, allow_targets: Sequence[str]) -> dict[str, Any]:
    """Return a run's recorded values with the types of the schema, once they have passed every check of a typed one.

    Args:
        values: as they were read.
        allow_targets: prefixes of the caller's own code.

    Raises:
        ConfigError: one line per problem.
    """
    if not isinstance(values, dict):
        raise ConfigError("holds no keys with values; expected the configuration of a run")
    if problems := list(_strange_values(values)):
        raise ConfigError("\n".join(problems))
    config = _typed({key: value for key, value in values.items() if key not in OF_THE_COMMAND})
    config["allow_targets"] = list(allow_targets)
    check_values(config)
    return config


def _read(path: Path) -> str:
    if not path.is_file():
        raise ConfigError("no such file; expected the config.yaml of a run")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"larger than {MOST_BYTES} bytes; expected the config.yaml of a run")
        return content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{error.strerror}; expected the config.yaml of a run") from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8; expected the config.yaml of a run") from error


def _parse(text: str) -> dict[str, Any]:
    """Return a document of plain values; aliases, by which a short one can stand for a huge one, are refused."""
    try:
        _require_small(text)
        document: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number or a date that is none
        told = " ".join(str(error).split())
        raise ConfigError(f"cannot be read as YAML: {told}") from error
    if not isinstance(document, dict):
        raise ConfigError("holds no keys with values; expected the config.yaml of a run")
    return document


def _require_small(text: str) -> None:
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ConfigError("has anchors or aliases (& or *); expected each value written out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if number >= MOST_EVENTS or depth > DEEPEST:
            raise ConfigError("larger or deeper than any configuration; expected the config.yaml of a run")


def _strange_values(node: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each value that is no plain one, or that would be resolved if it were a typed one."""
    if isinstance(node, dict):
        for key, child in node.items():
            if not isinstance(key, str):
                yield f"{path}.{key}: expected keys that are names".lstrip(".")
            yield from _strange_values(child, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _strange_values(child, f"{path}[{index}]")
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node!r}: interpolations are not resolved here; expected the value itself"
    elif not isinstance(node, str | int | float | bool | None):
        yield f"{path}={node}: expected text, a number, true, false or null"


def _typed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the types of the schema."""
    if unknown := [key for key in document if key not in KEYS]:
        raise ConfigError("\n".join(f"{key}: no such key in the configuration of a run" for key in unknown))
    if missing := [key for key in KEYS if key not in document]:
        raise ConfigError(f"{', '.join(missing)}: missing; expected the config.yaml of a run, written by this version")
    groups = {key.partition("/")[0] for key in SCHEMAS} & document.keys()
    for group in sorted(groups):
        if not isinstance(document[group], dict):
            raise ConfigError(f"{group}={document[group]}: expected keys with values")
    try:
        base = OmegaConf.structured(Run(**{group: _schema(group, document[group]) for group in groups}))
        merged = OmegaConf.merge(base, document)
        run = OmegaConf.masked_copy(merged, list(KEYS))  # type: ignore[arg-type]
        return plain(run)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def _schema(group: str, node: Mapping[str, Any]) -> Any:
    """Return the schema of the group's option that has the keys of a node; a target of one's own may take more."""
    candidates = [schema for path, schema in SCHEMAS.items() if path.partition("/")[0] == group]
    keys = {schema: {item.name for item in fields(schema)} for schema in candidates}
    fitting = [schema for schema in candidates if keys[schema] == node.keys()]
    if not fitting and group in HOMES and not str(node.get("_target_")).startswith(HOMES[group]):
        fitting = sorted(
            (schema for schema in candidates if keys[schema] <= node.keys()), key=lambda schema: -len(keys[schema])
        )
    if not fitting:
        nearest = min(candidates, key=lambda schema: len(keys[schema] ^ node.keys()))
        told = {"unknown": node.keys() - keys[nearest], "missing": keys[nearest] - node.keys()}
        listed = "; ".join(f"{what}: {', '.join(sorted(map(str, names)))}" for what, names in told.items() if names)
        raise ConfigError(f"{group}: not the keys of any of its options ({listed})")
    return OmegaConf.structured(fitting[0], flags={"struct": len(keys[fitting[0]]) == len(node)})
