"""Registers the schemas and the resolver with Hydra; importing it touches neither torch nor MLflow."""

import secrets

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from tl_experiments.config.schema import OF_HYDRA, SCHEMAS


def register() -> None:
    """Make `/schema/...` and `${tl_stamp:}` known to Hydra; calling it again changes nothing."""
    store = ConfigStore.instance()
    if "schema" in store.repo:
        return
    # Hydra copies its sources, and with one of them this whole store, for each group whose options it lists: a second
    # of `--help`. What it loads from the store it copies anyway.
    ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
    for path, schema in (SCHEMAS | OF_HYDRA).items():
        group, _, name = f"schema/{path}".rpartition("/")
        store.store(group=group, name=name, node=schema)
    # Cached, so that one invocation has one stamp and two that start in the same second do not share a folder.
    if not OmegaConf.has_resolver("tl_stamp"):
        OmegaConf.register_new_resolver("tl_stamp", lambda: secrets.token_hex(2), use_cache=True)


def _itself(store: ConfigStore, _memo: dict[int, object]) -> ConfigStore:
    return store
