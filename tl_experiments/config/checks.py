"""Checks that types cannot express, all at once; nothing heavy is imported."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import unknown_key
from tl_experiments.config.ranges import lookup, range_problems
from tl_experiments.config.rules import rule_problems
from tl_experiments.config.schema import Run
from tl_experiments.config.targets import HOMES, target_problems

SQLITE = "sqlite:///"
TABLES = "tl_experiments.data.tables."
SHARDS = "tl_experiments.data.tar_dataset."


def check_ranges(config: Mapping[str, Any]) -> None:
    """Raise one ConfigError that names every value out of its range; a node that is not there is not checked."""
    _raise(range_problems(config))


def check_values(config: Mapping[str, Any]) -> None:
    """Raise one ConfigError that names every problem of a resolved, plain config that any machine would see.

    Args:
        config: nested plain containers, enums as their lower-case names.

    Raises:
        ConfigError: one line per problem.
    """
    _raise(_value_problems(config))


def check(config: Mapping[str, Any], *, folder: Path) -> None:
    """Raise one ConfigError that names every problem of a resolved, plain config, here and now.

    Args:
        config: nested plain containers, enums as their lower-case names.
        folder: where the run will write; it need not exist yet.

    Raises:
        ConfigError: one line per problem.
    """
    _raise(chain(_value_problems(config), _place_problems(config, folder)))


def _value_problems(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _key_problems(config)
    yield from range_problems(config)
    yield from rule_problems(config)
    yield from target_problems(config)
    yield from interpolation_problems(config)


def _raise(problems: Iterable[str]) -> None:
    if told := "\n".join(problem.replace("\n", "\\n") for problem in problems):
        raise ConfigError(told)


def _key_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Typed nodes refuse unknown keys by themselves; at the top, `+key=value` would add what nothing reads."""
    known = {item.name for item in fields(Run)}
    return (unknown_key(key) for key in config if key not in known)


def interpolation_problems(node: Any, path: str = "") -> Iterator[str]:
    """All is resolved by now; what still looks like an interpolation would be resolved when a group is built."""
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from interpolation_problems(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from interpolation_problems(child, f"{path}[{index}]")
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node}: interpolations have no effect here; expected the value itself"


def _place_problems(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    root = lookup(config, "dataset.root")
    downloads = lookup(config, "dataset.download")  # where it is a key, the dataset tells what is to be put there
    target = lookup(config, "dataset._target_") or ""
    kind = "file" if target.startswith(TABLES) else "folder"
    if root == "":
        yield f"dataset.root is empty; expected a {kind} of images"
    elif root is not None and target.startswith(SHARDS):
        yield from _shard_problems(root)
    elif root is not None and downloads is None and not _is_there(root, kind):
        yield (
            f"dataset.root={root}: no such {kind}; expected a {kind} of images (relative paths start at {Path.cwd()})"
        )
    weights = lookup(config, "backbone.weights")
    own_code = not lookup(config, "backbone._target_").startswith(HOMES["backbone"])
    if weights not in (None, "default") and not own_code and not _is_there(weights, "file"):
        yield f"backbone.weights={weights}: no such file; expected a file of tensors, default, or null"
    if not _writable(folder):
        yield f"{folder}: cannot be written to; expected a writable output folder (hydra.run.dir or hydra.sweep.dir)"
    uri = lookup(config, "tracking.uri") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if lookup(config, "tracking._target_") and uri.startswith(SQLITE):
        store = Path(uri.removeprefix(SQLITE)).absolute()
        if not _writable(store.parent):
            yield f"tracking.uri={uri}: {store.parent} cannot be written to; expected a folder for the database"


def _shard_problems(root: str) -> Iterator[str]:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", root)
    if _is_there(root, "folder") or _is_there(root, "file"):
        return
    if "::" in root or (scheme and scheme[1].lower() not in ("http", "https")):  # such as pipe:, which is a command
        yield f"dataset.root={root}: expected a folder of tar files, their names, or a URL of http or https"
    elif not scheme and "{" not in root:
        yield f"dataset.root={root}: no such folder; expected shards (relative paths start at {Path.cwd()})"


def _is_there(root: str, kind: str) -> bool:
    path = os.path.expanduser(root)  # noqa: PTH111 - pathlib would raise where there is no such user
    return os.path.isfile(path) if kind == "file" else os.path.isdir(path)  # noqa: PTH112, PTH113 - or too long a name


def _writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
