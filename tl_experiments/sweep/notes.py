"""What makes the numbers of a sweep less comparable than they look."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tl_experiments.sweep.outcome import Outcome, read_epochs

SOURCE = ("_target_", "name", "root", "subset", "revision")  # what tells one dataset from another
Data = tuple[Mapping[str, Any], Mapping[str, Any]]  # the group `dataset` of a run's settings, and its result
MOST_NAMED = 5  # rows or runs that a note names


def comparability_notes(finished: Sequence[Outcome], *, short: Sequence[str]) -> Iterator[str]:
    """Yield sentences for people.

    Args:
        finished: the runs that are compared.
        short: names of configurations of which not all seeds finished.
    """
    yield from data_notes([_data(outcome) for outcome in finished])
    yield from made_otherwise([outcome.result for outcome in finished])
    if short:
        yield f"Not all seeds finished, so that means are of fewer runs than planned: {_listed(short)}."
    diverged = [outcome.job.name for outcome in finished if _diverged(outcome)]
    if diverged:
        yield f"The loss was not a finite number in some epochs of: {_listed(diverged)}."


def data_changed(outcomes: Iterable[Outcome]) -> bool:
    """Whether runs that were given the same dataset saw different contents or splits."""
    return _changed([_data(outcome) for outcome in outcomes])


def data_notes(runs: Sequence[Data]) -> Iterator[str]:
    """Yield a sentence where runs did not learn from the same data, by the group `dataset` and the result of each."""
    if _changed(runs):
        yield "Runs with the same settings of the dataset saw different images or splits: the data changed meanwhile."
    sources = {str([settings.get(key) for key in SOURCE]) for settings, _ in runs}
    if len(sources) > 1:
        yield "The runs learned from different datasets: a rank across them compares tasks, not settings."


def _changed(runs: Iterable[Data]) -> bool:
    seen: dict[str, set[str]] = {}
    for settings, result in runs:
        key = json.dumps(settings, sort_keys=True, default=str)
        seen.setdefault(key, set()).add(_fact(result, "dataset_fingerprint"))
    return any(len(fingerprints - {""}) > 1 for fingerprints in seen.values())


def _data(outcome: Outcome) -> Data:
    return outcome.job.config.get("dataset", {}), outcome.result


def made_otherwise(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each circumstance in which runs differ, by their results."""
    for what, facts in {
        "on different devices": (_fact(result, "device") for result in results),
        "by different numbers of processes": (_fact(result, "processes") for result in results),
        "on different machines": (_fact(result, "host") for result in results),
        "by different commits of the code": (_fact(result, "git_commit") for result in results),
        "with different versions of libraries": (_versions(result) for result in results),
    }.items():
        different = sorted(set(facts) - {""})
        if len(different) > 1:
            yield f"The runs were made {what}, so that times and last digits may differ: {'; '.join(different)}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _diverged(outcome: Outcome) -> bool:
    return any(row.get(key, 0.0) is None for row in read_epochs(outcome) for key in ("train/loss", "val/loss"))


def _versions(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in (result.get("versions") or {}).items())


def _fact(result: Mapping[str, Any], key: str) -> str:
    return str(result.get(key) or "")
