"""From Hydra's sweep syntax to a space that is searched, and to the configurations at its ends."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import GROUPS
from tl_experiments.sweep.planning import is_foreign
from tl_experiments.sweep.search.settings import Parameter


def space_of(overrides: Sequence[Override]) -> tuple[Parameter, ...]:
    """Return what is searched: every key that was given several values or an interval, in typed order.

    Raises:
        ConfigError: an interval is empty, values are shuffled, or nothing is searched.
    """
    found = [_parameter(override) for override in overrides if override.is_sweep_override()]
    space = tuple(parameter for parameter in found if len(parameter.choices) != 1)
    if not space:
        raise ConfigError("nothing to search: expected keys with values to choose from, such as lr=interval(1e-5,1e-1)")
    return space


def _parameter(override: Override) -> Parameter:
    key, value, line = override.get_key_element(), override.value(), override.input_line
    tags = value.tags if isinstance(value, ChoiceSweep | RangeSweep | IntervalSweep) else set()
    if unknown := tags - {"log"} if isinstance(value, IntervalSweep) else tags:
        raise ConfigError(
            f"{line}: the tag {', '.join(sorted(unknown))} says nothing here; expected tag(log, interval(..))"
        )
    if getattr(value, "shuffle", False):
        raise ConfigError(f"{line}: a search has no order that could be shuffled; expected the values alone")
    if isinstance(value, IntervalSweep):
        return _interval(key, value, line=str(line))
    texts = tuple(dict.fromkeys(str(text) for text in override.sweep_string_iterator()))
    if isinstance(value, RangeSweep) and len(texts) > 1:
        numbers = [float(text) for text in texts]
        whole = all(isinstance(number, int) for number in value.range())
        step = abs(float(value.step))
        return Parameter(key, low=min(numbers), high=max(numbers), step=step, whole=whole)
    return Parameter(key, choices=texts)


def _interval(key: str, value: IntervalSweep, *, line: str) -> Parameter:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not low < high:
        raise ConfigError(f"{line}: an interval without numbers; expected the lower end first")
    log, whole = "log" in value.tags, isinstance(low, int) and isinstance(high, int)
    if log and low <= 0:
        raise ConfigError(f"{line}: no logarithm of {low:g}; expected an interval above 0")
    return Parameter(
        key, low=float(low), high=float(high), log=log, whole=whole, step=1.0 if whole and not log else None
    )


def in_order(space: Sequence[Parameter]) -> list[Parameter]:
    """Return groups before what their options may lack."""
    return sorted(space, key=lambda parameter: parameter.key not in GROUPS)


def corners(space: Sequence[Parameter], *, swept: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield configurations that hold every end of every parameter: if these can be used, so can what lies between.

    Args:
        space: that is searched.
        swept: its keys, with their values where these are a list.
    """
    first = {parameter.key: parameter.ends[0] for parameter in space}
    for parameter in space:
        home = _home(parameter.key, first, swept)
        for end in parameter.ends:
            yield without_foreign({**first, **home, parameter.key: end}, swept)


def without_foreign(values: Mapping[str, Any], swept: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Leave out the keys that the chosen options do not have."""
    return {key: value for key, value in values.items() if not is_foreign(key, values, swept)}


def _home(key: str, first: Mapping[str, str], swept: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the option that has a key, if the first option of its group has it not."""
    group = key.partition(".")[0]
    options = (option for option in swept.get(group, ()) if not is_foreign(key, {**first, group: option}, swept))
    return {group: next(options)} if is_foreign(key, first, swept) else {}
