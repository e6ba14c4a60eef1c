"""Going on with a sweep: what was typed beside `sweep.resume` must agree with its plan."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.typed import Typed

Parse = Callable[[list[str]], list[Override]]

OF_THE_PLAN = ("hydra.mode=", "hydra.sweep.", "hydra.searchpath=")  # what went into the plan needs no second word


def disagreements(plan: Plan, typed: Typed, *, parse: Parse) -> list[str]:
    """Return a line for each override that was typed and says something else than the plan; left out, it says nothing.

    Args:
        plan: of the sweep.
        typed: the command line.
        parse: of overrides, which knows the options of groups.
    """
    planned = {item.get_key_element(): item for item in parse(list(plan.overrides))}
    problems = []
    for override, line in zip(typed.run, typed.lines, strict=True):
        key = override.get_key_element()
        if line in plan.overrides or key == "allow_targets":  # which code may run is said anew
            continue
        before = planned.get(key)
        if before is None:
            problems.append(f"{line}: the plan of {plan.name} has no {key}; leave it out, or start anew")
        elif _values(override) != _values(before):
            problems.append(f"{line}: the plan of {plan.name} has {before.input_line}; leave it out, or start anew")
    planned_heads = str(plan.settings["max_heads"])
    problems += [
        f"{override.input_line}: the plan of {plan.name} has {planned_heads}; leave it out, or start anew "
        "(features that are kept are not computed again)"
        for override in typed.sweep
        if override.get_key_element().lstrip("+") == "sweep.max_heads" and _values(override) != [planned_heads]
    ]
    return problems


def _values(override: Override) -> list[str]:
    """Return what an override gives its key, however it was written: `1e-3` and `0.001` are the same."""
    if override.is_discrete_sweep():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def changed_code(plan: Plan, now: Mapping[str, str]) -> list[str]:
    """Return what is not as it was when the sweep was planned, such as `torch 2.11.0 → 2.12.0`."""
    return [f"{key} {plan.code.get(key)} → {value}" for key, value in now.items() if plan.code.get(key) != value]


def forgotten(plan: Plan, hydra_overrides: Sequence[str]) -> list[str]:
    """Return what Hydra was told when the sweep was planned and is not told now, such as `hydra/launcher=joblib`."""
    left_out = [line for line in plan.hydra_overrides if line not in hydra_overrides]
    return [f"{line} was typed then" for line in left_out if not line.startswith(OF_THE_PLAN)]


def settings_now(plan: Plan, settings: Mapping[str, Any], typed: Sequence[Override]) -> dict[str, Any]:
    """Return how the sweep goes on: as it was planned, but for what was typed now."""
    keys = {override.get_key_element().lstrip("+").removeprefix("sweep.") for override in typed}
    return {**plan.settings, **{key: value for key, value in settings.items() if key in keys}}
