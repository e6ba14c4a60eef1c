"""What is typed for Hydra itself, looked at before Hydra acts on it: values, and never code or what leads to code."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import GROUPS

PICKLE_OPTION = "--experimental-rerun"  # of Hydra: it loads a pickle
MOST_SHOWN = 120  # characters of an argument
CODE_KEYS = ("()", ".", "class")  # of Python's logging; keys such as _target_ are told by their underscores
CODE_VALUES = ("ext://", "cfg://", "pkg://")
BUILT = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")  # Hydra makes objects of these
PLACES = ("hydra.output_subdir", "hydra.sweep.subdir")  # below the folder of a run or a sweep
ENVIRONMENT = "hydra.job.env_set"
LOADED = ("PATH", "LD_", "DYLD_", "PYTHON", "GIT_")  # variables that say which code a process loads


def require_values(arguments: Sequence[str]) -> None:
    """Refuse what would have Hydra run code, or read and write where nothing of it belongs.

    Args:
        arguments: the command line; what cannot be parsed is left for Hydra to tell.

    Raises:
        ConfigError: one line per argument.
    """
    problems = [f"{_shown(argument)}: {problem}" for argument in arguments if (problem := _problem(argument))]
    if problems:
        raise ConfigError("\n".join(problems))


def _shown(argument: str) -> str:
    shown = argument.replace("\n", "\\n")
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


def _problem(argument: str) -> str | None:
    if argument.startswith("--e") and PICKLE_OPTION.startswith(argument.partition("=")[0]):
        return f"stands for {PICKLE_OPTION}, whose pickle can run code; expected overrides such as lr=1e-4"
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:  # an option such as -m, or a mistake that Hydra tells itself
        return None
    except ValueError as error:  # Python reads no number of thousands of digits
        return f"{error}; expected a number that means something"
    key, values = override.key_or_group, list(_strings(override.value()))
    if key in GROUPS or "/" in key or override.package is not None:
        return _option_problem(override, values)
    return _hydra_problem(key, override.value(), values) if key.partition(".")[0] == "hydra" else None


def _option_problem(override: Override, values: Sequence[str]) -> str | None:
    if not all(_stays_below(value) for value in (override.key_or_group, *values)):
        return "leads out of the folder of configurations; expected the name of an option"
    if (override.package or "").partition(".")[0] == "hydra":
        return "options are not for Hydra's own configuration; expected them in their group"
    return None


def _hydra_problem(key: str, value: Any, values: Sequence[str]) -> str | None:
    inner = list(_keys(value))
    names = [*key.split("."), *inner, *(part for name in inner for part in name.split("."))]
    if any(name in CODE_KEYS or name.startswith("_") for name in names) or _holds(values, CODE_VALUES):
        return "names code, which Hydra would run; expected plain values (hydra/launcher=... chooses what is there)"
    if (key == "hydra" or key.split(".")[1] in BUILT) and _holds(values, ("${",)):
        return "Hydra would build what this leads to; expected the value itself"
    if "hydra" in names[1:]:  # as a sweeper's params would have it
        return "sets Hydra's configuration in a roundabout way; expected it as an argument of its own"
    if key in PLACES and not all(_stays_below(value) for value in values):
        return "leads out of the folder of the run; expected a folder below it"
    if f"{key}.".startswith(f"{ENVIRONMENT}.") and any(name.upper().startswith(LOADED) for name in names):
        return f"decides which code is loaded; expected other variables than {', '.join(LOADED)}..."
    return None


def _holds(values: Sequence[str], parts: Sequence[str]) -> bool:
    return any(part in value for value in values for part in parts)


def _stays_below(place: str) -> bool:
    path = PurePosixPath(place)
    return not path.is_absolute() and ".." not in path.parts


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, ChoiceSweep):
        yield from value.list


def _keys(value: Any) -> Iterator[str]:
    """Yield every key, however deep."""
    if isinstance(value, dict):
        yield from map(str, value)
    for child in _children(value):
        yield from _keys(child)


def _strings(value: Any) -> Iterator[str]:
    """Yield every text, however deep."""
    if not isinstance(value, dict | list | ChoiceSweep):
        yield str(value)
    for child in _children(value):
        yield from _strings(child)
