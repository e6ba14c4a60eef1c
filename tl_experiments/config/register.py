"""Registers the schemas and the resolver with Hydra; importing it touches neither torch nor MLflow."""

import secrets
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from tl_experiments.config.schema import OF_HYDRA, SCHEMAS


def register() -> None:
    """Make `/schema/...` and `${tl_stamp:}` known to Hydra; calling it again changes nothing."""
    store = ConfigStore.instance()
    # Hydra copies its sources, and with one of them this store, for each group whose options it lists: with all schemas
    # a second of `--help`. What it loads from a store it copies anyway.
    ConfigStore.__deepcopy__ = _with_the_same_nodes  # type: ignore[attr-defined]
    for path, schema in (SCHEMAS | OF_HYDRA).items():
        group, _, name = f"schema/{path}".rpartition("/")
        store.store(group=group, name=name, node=schema)
    # Cached, so that one invocation has one stamp and two that start in the same second do not share a folder.
    if not OmegaConf.has_resolver("tl_stamp"):
        OmegaConf.register_new_resolver("tl_stamp", lambda: secrets.token_hex(2), use_cache=True)


def _with_the_same_nodes(store: ConfigStore, _memo: dict[int, object]) -> ConfigStore:
    copied = object.__new__(ConfigStore)  # which is a singleton
    copied.repo = _copied(store.repo)
    return copied


def _copied(folder: dict[str, Any]) -> dict[str, Any]:
    return {name: _copied(node) if isinstance(node, dict) else node for name, node in folder.items()}
