"""What of their configurations tells runs apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tl_experiments.tracking.params import as_text
from tl_experiments.tracking.tags import with_effect

NONE = "–"  # a run has no such key
UNREAD = "?"  # a run's settings cannot be read
BUILDING = ("_target_", "_partial_")  # said by the option of the group, where that differs
RATE = "optimizer.lr"  # `lr` again, unless it was given by itself

Differences = dict[str, tuple[str, ...]]


def differing_settings(
    configs: Sequence[Mapping[str, Any]], *, choices: Sequence[Mapping[str, str]], same_data: bool
) -> Differences:
    """Return key → value of each run, of the keys that differ; first the options of groups, then what they hold.

    What changes no result is left out: where files lie, if they are the same, where a run is tracked, how fast it goes.

    Args:
        configs: resolved, of each run; of one that cannot be read it is empty.
        choices: group → option, of each run.
        same_data: whether all are known to have seen the same images, wherever these lie.
    """
    groups = dict.fromkeys(group for chosen in choices for group in chosen if group != "tracking")
    options = {group: tuple(chosen.get(group, NONE) for chosen in choices) for group in groups}
    flat = [dict(_flat(with_effect(config) | ({} if same_data else _place(config)))) for config in configs]
    read = [values for values in flat if values]
    if all(values.get(RATE, rate) == rate for values in read if (rate := values.get("lr")) is not None):
        for values in read:
            values.pop(RATE, None)
    keys = dict.fromkeys(key for values in read for key in values)
    values = {key: tuple(values.get(key, NONE) if values else UNREAD for values in flat) for key in keys}
    chosen_otherwise = {group for group, told in options.items() if _differs(told)}
    told = {
        key: row
        for key, row in values.items()
        if not (key.endswith(BUILDING) and key.partition(".")[0] in chosen_otherwise)
    }
    return {key: row for key, row in (options | told).items() if _differs(row)}


def _differs(row: Sequence[str]) -> bool:
    return len(set(row) - {UNREAD}) > 1


def _place(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the images of a run lie, as a key beside others."""
    dataset = config.get("dataset")
    return {"dataset.root": dataset["root"]} if isinstance(dataset, Mapping) and "root" in dataset else {}


def _flat(node: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{name}.")
        elif isinstance(value, list):
            yield name, ", ".join(as_text(item) for item in value)
        else:
            yield name, as_text(value)
