"""Turns the errors of Hydra and OmegaConf into one line that names the key and the nearest match."""

import difflib
import re
from dataclasses import fields
from pathlib import PurePosixPath

from hydra.errors import MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tl_experiments.config.schema import SCHEMAS, Run


def known_keys() -> list[str]:
    """List every key that some option accepts, as it is typed: `lr`, `optimizer.momentum`."""
    groups = {path: path.split("/")[0] for path in SCHEMAS if path != "run"}
    nested = {f"{group}.{item.name}" for path, group in groups.items() for item in fields(SCHEMAS[path])}
    keys = {item.name for item in fields(Run)} | nested
    return sorted(key for key in keys if not key.rpartition(".")[2].startswith("_"))


def _nearest(word: str, candidates: list[str]) -> str:
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _unknown_option(error: MissingConfigException) -> str:
    options = sorted(option for option in error.options or [] if option != "schema")
    path = PurePosixPath(error.missing_cfg_file or "")
    listed = f"; expected one of {', '.join(options)}" if options else ""
    return f"{path.parent}={path.name}: no such option{_nearest(path.name, options)}{listed}"


def explain(error: Exception) -> str:
    """Return one line: what was wrong, and what was expected."""
    for cause in _causes(error):
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            return _unknown_option(cause)
        if isinstance(cause, MissingMandatoryValue):
            key = cause.full_key or str(cause).rpartition(": ")[2].splitlines()[0]
            return f"{key} is missing; give it on the command line: {key}=..."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}; expected a path that can be read and written"
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        option = "no such group" if "No match in the defaults list" in text else "no such key"
        return f"{key}: {option}{_nearest(key, known_keys())} (python run.py --help lists them)"
    for cause in _causes(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {(cause.msg or str(cause)).splitlines()[0]}"
    return text.replace("\n", " ").strip()
