"""A run's own configuration, used again: where and how the run goes on may change, what it is may not."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from tl_experiments.config.checks import check
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import GROUPS
from tl_experiments.config.ranges import lookup
from tl_experiments.config.record import checked_record

MAY_CHANGE = ("runtime.", "checkpoint.", "dataset.root", "dataset.download")  # keys, or groups with a dot behind them


def parse_overrides(arguments: Sequence[str]) -> dict[str, Override]:
    """Return what was typed, by its key.

    Raises:
        ConfigError: it is not in Hydra's grammar.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return {override.get_key_element(): override for override in overrides}


def with_changes(
    config: Mapping[str, Any],
    typed: Mapping[str, Override],
    *,
    choices: Mapping[str, str],
    may_change: Sequence[str],
    folder: Path,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a run's configuration with what was typed, as far as that may change, checked here and now.

    And a line for each value that is not what it was.

    Args:
        config: as `read_record` gives it.
        typed: a value that the run has already changes nothing.
        choices: of the run, group → option.
        may_change: as `MAY_CHANGE`.
        folder: where the run will write.

    Raises:
        ConfigError: a line for each override that is not what the run was begun with, or for each wrong value.
    """
    changed, lines, problems = deepcopy(dict(config)), [], []
    for key, override in typed.items():
        value, told = override.value(), override.get_value_element_as_str()
        was = choices.get(key) if key in GROUPS else lookup(config, key)
        if was == value:
            continue
        group, _, name = key.partition(".")
        if key.startswith(tuple(may_change)) and name in changed[group]:
            changed[group][name] = value
            lines.append(f"{key}={told} (was {was})")
        else:
            problems.append(f"{key}={told}: the run has {key}={was}; it may change {_told(may_change)} only")
    if problems:
        raise ConfigError("\n".join(problems))
    changed = checked_record(changed, allow_targets=config["allow_targets"])
    check({**changed, "resume": None, "sweep": {}}, folder=folder)
    return changed, tuple(lines)


def _told(may_change: Sequence[str]) -> str:
    *others, last = (f"{key}*" if key.endswith(".") else key for key in may_change)
    return f"{', '.join(others)} and {last}"
