"""What the environment holds stays out of records: few keys may take a value from it."""

from collections.abc import Iterator
from typing import Any, NoReturn

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from tl_experiments.config.errors import ConfigError

RESOLVER = "oc.env"
ALLOWED = ("dataset.root", "backbone.weights")  # paths that differ from machine to machine


def require_no_secrets(config: DictConfig) -> None:
    """Refuse values that come from the environment, directly or through other keys, but for a few paths.

    Args:
        config: composed, without the node `hydra`; it can be resolved.

    Raises:
        ConfigError: one line per key.
    """
    if not any("${" in text and ":" in text for text in _texts(OmegaConf.to_container(config, resolve=False))):
        return  # no resolver is called
    asked: list[str] = []

    def refuse(name: str, *_: Any) -> NoReturn:
        asked.append(name)
        raise KeyError(name)

    OmegaConf.register_new_resolver(RESOLVER, refuse, replace=True)
    try:
        readers = list(_readers(config, asked))
    finally:
        OmegaConf.register_new_resolver(RESOLVER, oc.env, replace=True)
    if readers:
        expected = f"expected the value itself ({' and '.join(ALLOWED)} may come from there)"
        lines = (f"{key}: takes a value from the environment, which records would show; {expected}" for key in readers)
        raise ConfigError("\n".join(lines))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _texts(child)
    elif isinstance(node, str):
        yield node


def _readers(node: DictConfig | ListConfig, asked: list[str], path: str = "") -> Iterator[str]:
    """Yield the keys for whose values the environment is asked, which refuses for now and says so in `asked`."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        below = f"{path}[{key}]" if isinstance(node, ListConfig) else f"{path}.{key}".lstrip(".")
        if below in ALLOWED:
            continue
        try:
            child = node[key]  # type: ignore[index]
        except OmegaConfBaseException:  # other errors were seen when the config was resolved
            if asked:
                yield below
            asked.clear()
            continue
        if isinstance(child, DictConfig | ListConfig):
            yield from _readers(child, asked, below)
