"""A command line of `-m`: what the runs are given, and what the sweep itself is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import key_owners
from tl_experiments.config.member import GROUPS

RECIPE = "grid"  # the group whose options say what a sweep varies


@dataclass(frozen=True)
class Typed:
    """A command line, sorted.

    Attributes:
        run: overrides of the runs, which may have several values.
        sweep: overrides of the sweep itself.
    """

    run: tuple[Override, ...]
    sweep: tuple[Override, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(_line(override) for override in self.run)

    @property
    def swept(self) -> dict[str, list[str]]:
        """The keys that were given several values, with those."""
        choices = {
            override.get_key_element(): [str(value) for value in override.sweep_string_iterator()]
            for override in self.run
            if override.is_discrete_sweep()
        }
        return {key: values for key, values in choices.items() if len(values) > 1}


def sort_overrides(overrides: Sequence[Override], *, searches: bool = False) -> Typed:
    """Part what the runs are given from what the sweep is given.

    Args:
        overrides: as they were typed.
        searches: whether values may be intervals.

    Raises:
        ConfigError: a setting of the sweep or its recipe has several values, or a value is no list of choices, or an
            empty one.
    """
    own = tuple(item for item in overrides if item.get_key_element().lstrip("+~").split(".")[0] == "sweep")
    for override in own:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: a setting of the sweep itself; expected one value")
    for override in overrides:
        if override.get_key_element() == RECIPE and override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: says what varies; expected one of them")
        if override.is_discrete_sweep() and not any(True for _ in override.sweep_string_iterator()):
            raise ConfigError(f"{override.input_line}: holds no value; expected one or more")
        if override.is_sweep_override() and not override.is_discrete_sweep() and not searches:
            raise ConfigError(
                f"{override.input_line}: expected values to choose from, such as a,b or range(1,4); "
                "intervals are for a sweeper that searches: hydra/sweeper=optuna"
            )
    return Typed(run=tuple(item for item in overrides if item not in own), sweep=own)


def typed_over(recipe: Sequence[Override], *, typed: Sequence[Override]) -> list[Override]:
    """Return a recipe's overrides and what was typed beside it, which takes their place where the key is the same."""
    answers = [[item for item in typed if _key(item) == _key(given)] or [given] for given in recipe]
    first = list(chain.from_iterable(answers))
    return [*first, *(item for item in typed if item not in first)]


def as_choices(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which a key that only some swept options have is a choice of one.

    Hydra first composes the defaults with every single value, and would refuse `strategy.backbone_lr_scale=0.1` beside
    `strategy=feature,finetune`, because the default strategy has no such key; choices it leaves to the sweeper.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    parsed = {argument: _parse(argument) for argument in arguments}
    overrides = [override for override in parsed.values() if override is not None]
    swept: set[str] = {override.get_key_element() for override in overrides if override.is_sweep_override()} & set(
        GROUPS
    )
    if {"sweep.resume", RECIPE} & {override.get_key_element() for override in overrides}:
        swept = set(GROUPS)  # which they are is said by the plan, or the recipe
    return [_as_choice(argument, parsed[argument], swept) for argument in arguments]


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def _line(override: Override) -> str:
    """Return an override as it was typed: a choice of one was made by `as_choices`."""
    if override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
        if len(values) == 1:
            return f"{override.get_key_element()}={values[0]}"
    return str(override.input_line)


def _parse(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:  # an option such as -m, or a mistake that Hydra tells itself
        return None


def _as_choice(argument: str, override: Override | None, swept: set[str]) -> str:
    if override is None or override.is_sweep_override():
        return argument
    key, value = override.get_key_element(), override.get_value_element_as_str()
    owned = key.partition(".")[0] in swept and bool(key_owners().get(key))
    return f"{key}=choice({value})" if owned and value else argument
