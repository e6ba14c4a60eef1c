"""Turns the errors of Hydra and OmegaConf into one line that names the key and the nearest match."""

import difflib
import re
from dataclasses import fields
from pathlib import PurePosixPath

from hydra.errors import MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tl_experiments.config.schema import SCHEMAS, Run

SHARED_SCHEMAS = {
    "torchvision": ("cifar10", "cifar100", "fashion_mnist"),
    "table": ("csv", "parquet"),
}  # of several options


def key_owners() -> dict[str, list[str]]:
    """Return every key as it is typed (`lr`, `optimizer.momentum`), with the options that have it, if they differ."""
    owners: dict[str, list[str]] = {item.name: [] for item in fields(Run)}
    of_all = set()  # keys that a schema of the whole group has; those of single options repeat them
    for path, schema in SCHEMAS.items():
        group, _, option = path.partition("/")
        for item in fields(schema) if path != "run" else ():
            key = f"{group}.{item.name}"
            if not item.name.startswith("_"):
                owners.setdefault(key, []).extend(SHARED_SCHEMAS.get(option, (option,) if option else ()))
                of_all |= set() if option else {key}
    return owners | {key: [] for key in of_all}


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
    return f"{path.parent}={path.name}: no such option{listed}{_nearest(path.name, options)}"


def unknown_key(key: str, *, is_group: bool = False) -> str:
    """Return one line: which option has such a key, or what it may have been meant to be."""
    owners = key_owners()
    if owners.get(key):
        group = key.partition(".")[0]
        return f"{key}: the chosen {group} has no such key; it belongs to {group}={','.join(owners[key])}"
    what = "no such group" if is_group else "no such key"
    return f"{key}: {what}{_nearest(key, list(owners))} (python run.py --help lists them)"


def _in_words(message: str) -> str:
    """Say what type was expected as a user would: `Optional[Union[int, float]]` is a number or null."""
    message = re.sub(r"is incompatible with type hint '(.+)'", r"was given; expected \1", message)
    message = re.sub(
        r"could not be converted to (\w+)", lambda match: f"was given; expected {match[1].lower()}", message
    )
    message = re.sub(r"field '\w+' is not Optional", "null was given; expected a value", message)
    message = re.sub(r"Incompatible value 'None' for field of type '\w+'", "null was given; expected a value", message)
    message = message.replace("Union[int, float]", "a number")
    return re.sub(r"Optional\[(.+)\]", r"\1 or null", message)


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
        return unknown_key(match[1].split("@")[0], is_group="No match in the defaults list" in text)
    for cause in _causes(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {_in_words((cause.msg or str(cause)).splitlines()[0])}"
    if match := re.search(r"^\s*full_key: (\S+)$", text, re.MULTILINE):  # OmegaConf's note on an error of Python's
        return f"{match[1]}: {text.splitlines()[0]}"
    return text.replace("\n", " ").strip()
