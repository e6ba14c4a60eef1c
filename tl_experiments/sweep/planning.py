"""From a command line to a plan: every combination is composed and checked before the first job starts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import explain, key_owners
from tl_experiments.config.member import checked, chosen_options, make_uid, run_name
from tl_experiments.runtime.errors import UserError
from tl_experiments.runtime.fingerprint import fingerprint, git_commit, versions
from tl_experiments.runtime.typed_path import lasting_place
from tl_experiments.sweep.hydra_files import HydraFiles, hydra_files
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.sweep.typed import Typed
from tl_experiments.tracking.address import lasting_uri

PLACES = ("tracking.uri", "tracking.experiment_name")
MOST_NAMED = 5  # jobs that an error names
WRONG = (ConfigError, UserError, HydraException, OmegaConfBaseException, ValueError, OverflowError)  # input

Compose = Callable[[list[str]], DictConfig]


@dataclass(frozen=True)
class _Candidate:
    """One combination, composed and checked."""

    overrides: tuple[str, ...]
    values: dict[str, str]
    choices: dict[str, str]
    config: dict[str, Any]
    digest: str
    folder: str


def make_plan(
    typed: Typed,
    *,
    compose: Compose,
    folder: Path,
    hydra_overrides: Sequence[str],
    settings: Mapping[str, Any],
    on_progress: Callable[[int, int], None],
) -> tuple[Plan, HydraFiles]:
    """Compose and check every combination.

    Args:
        typed: the command line.
        compose: task overrides → configuration, with its node `hydra`.
        folder: where the sweep will be, absolute; nothing is written.
        hydra_overrides: for the record.
        settings: of the sweep.
        on_progress: called with (combinations done, all).

    Returns:
        The plan, and what Hydra would write for its jobs.

    Raises:
        ConfigError: a line for each problem, with the jobs that have it.
    """
    candidates, files, dropped = _compose_all(typed, compose=compose, folder=folder, on_progress=on_progress)
    require_one_place(candidates)
    plan = replace(
        empty_plan(typed, folder=folder, hydra_overrides=hydra_overrides, settings=settings),
        jobs=tuple(map(_job, _varying(candidates), count())),
        groups=tuple((index,) for index in range(len(candidates))),  # until it is known which go together
        dropped=tuple(f"{number} × {what}" for what, number in dropped.items()),
    )
    return plan, files


def empty_plan(typed: Typed, *, folder: Path, hydra_overrides: Sequence[str], settings: Mapping[str, Any]) -> Plan:
    """Return a plan without jobs; the arguments are those of `make_plan`."""
    return Plan(
        uid=make_uid(),
        name=folder.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        overrides=typed.lines,
        hydra_overrides=tuple(hydra_overrides),
        settings=dict(settings),
        code=code_version(),
        jobs=(),
        groups=(),
    )


def make_job(
    overrides: Sequence[str], *, compose: Compose, index: int, folder: Path, swept: Mapping[str, Sequence[str]]
) -> tuple[PlannedJob, HydraFiles]:
    """Compose and check one combination.

    Args:
        overrides: `key=value`, one value each.
        compose: task overrides → configuration, with its node `hydra`.
        index: of the job.
        folder: of the sweep, absolute.
        swept: the keys that vary, with their values.

    Returns:
        The job, and what Hydra would write for it.

    Raises:
        ConfigError: a line for each problem.
    """
    try:
        config = compose(list(overrides))
        candidate = _candidate(overrides, config, index=index, folder=folder, swept=swept)
        return _job(candidate, index), hydra_files(config, folder=folder, job_folder=candidate.folder)
    except ConfigError:
        raise
    except WRONG as error:
        raise ConfigError(str(error) if isinstance(error, UserError) else explain(error)) from error


def _compose_all(
    typed: Typed, *, compose: Compose, folder: Path, on_progress: Callable[[int, int], None]
) -> tuple[list[_Candidate], HydraFiles, Counter[str]]:
    """Return every combination that is not the same as another, their files, and how often what was left out."""
    combinations = BasicSweeper.split_arguments(list(typed.run), None)[0]
    problems: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter()
    found: dict[str, _Candidate] = {}
    files: HydraFiles = {}
    for number, combination in enumerate(combinations):
        kept = list(_without_foreign_keys(combination, typed.swept, dropped))
        try:
            config = compose(kept)
            candidate = _candidate(kept, config, index=len(found), folder=folder, swept=typed.swept)
        except WRONG as error:
            values = [line for line in kept if line.partition("=")[0] in typed.swept]
            for line in str(error).splitlines() if isinstance(error, ConfigError | UserError) else [explain(error)]:
                problems.setdefault(line, []).append(run_name(values, index=number))
        else:
            if candidate.digest in found:
                dropped["the same configuration as another"] += 1
            else:
                found[candidate.digest] = candidate
                files |= hydra_files(config, folder=folder, job_folder=candidate.folder)
        on_progress(number + 1, len(combinations))
    if problems:
        raise ConfigError("\n".join(_told(line, names, len(combinations)) for line, names in problems.items()))
    return list(found.values()), files, dropped


def code_version() -> dict[str, str]:
    """Return what the code of a sweep is known by."""
    return {"tl_experiments": version("tl_experiments"), "git_commit": git_commit() or "none", **versions()}


def _without_foreign_keys(
    combination: Sequence[str], swept: Mapping[str, Sequence[str]], dropped: Counter[str]
) -> Iterator[str]:
    """Leave out keys that another swept option of their group accepts, but not the one of this combination."""
    chosen = dict(line.split("=", 1) for line in combination if line.partition("=")[0] in swept)
    for line in combination:
        key = line.partition("=")[0]
        if is_foreign(key, chosen, swept):
            group = key.partition(".")[0]
            dropped[f"{key} without effect: {group}={chosen[group]} has no such key"] += 1
        else:
            yield line


def is_foreign(key: str, chosen: Mapping[str, str], swept: Mapping[str, Sequence[str]]) -> bool:
    """Whether the chosen option of a swept group lacks a key that another of its options accepts."""
    group, options = key.partition(".")[0], key_owners().get(key, [])
    if group not in chosen or group not in swept or not options:
        return False
    return chosen[group] not in options and bool(set(options) & set(swept[group]))


def _candidate(
    overrides: Sequence[str], config: DictConfig, *, index: int, folder: Path, swept: Mapping[str, Sequence[str]]
) -> _Candidate:
    with flag_override(config, ["struct", "readonly"], [False, False]):
        config.hydra.job.num, config.hydra.job.id = index, str(index)
    subdir = str(config.hydra.sweep.subdir)
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values, _ = checked(task, folder=folder / subdir)
    _make_absolute(values)
    return _Candidate(
        overrides=tuple(overrides),
        values=dict(line.split("=", 1) for line in overrides if line.partition("=")[0] in swept),
        choices=chosen_options(config.hydra),
        config=values,
        digest=fingerprint(values),
        folder=subdir,
    )


def _make_absolute(config: dict[str, Any]) -> None:
    """Say where data and store are, so that the sweep can go on from any folder and under any environment."""
    tracking, dataset = config["tracking"], config["dataset"]
    if "uri" in tracking:
        tracking["uri"] = lasting_uri(tracking["uri"])  # None where only the environment may say it
    if dataset.get("root"):
        dataset["root"] = lasting_place(dataset["root"])


def _varying(candidates: Sequence[_Candidate]) -> Iterator[_Candidate]:
    """Leave out values that are the same in all jobs, once those that were doubled are gone."""
    first = candidates[0].values
    same = {key for key, value in first.items() if all(other.values.get(key) == value for other in candidates)}
    for candidate in candidates:
        varying = {key: value for key, value in candidate.values.items() if key not in same}
        yield replace(candidate, values=varying)


def _job(candidate: _Candidate, index: int) -> PlannedJob:
    values = [f"{key}={value}" for key, value in candidate.values.items()]
    return PlannedJob(
        index=index,
        name=run_name(values, index=index),
        overrides=candidate.overrides,
        values=candidate.values,
        config=candidate.config,
        choices=candidate.choices,
        uid=make_uid(),
        folder=candidate.folder,
        digest=candidate.digest,
    )


def _told(line: str, names: Sequence[str], num_jobs: int) -> str:
    """A problem that all jobs have needs no names."""
    if len(names) == num_jobs:
        return line
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"job {', '.join(names[:MOST_NAMED])}{more}: {line}"


def require_one_place(candidates: Sequence[_Candidate | PlannedJob]) -> None:
    """Runs of one sweep are compared in one place, each in a folder of its own; raises ConfigError."""
    for key in PLACES:
        found = {str(candidate.config["tracking"].get(key.split(".")[1])) for candidate in candidates}
        if len(found) > 1:
            raise ConfigError(
                f"{key}={','.join(sorted(found))}: the runs of a sweep are compared in one place; expected one"
            )
    folders: dict[str, tuple[str, ...]] = {}
    for candidate in candidates:
        other = folders.setdefault(candidate.folder, candidate.overrides)
        if other is not candidate.overrides:
            raise ConfigError(
                f"hydra.sweep.subdir={candidate.folder}: the same folder for {' '.join(other)} and "
                f"{' '.join(candidate.overrides)}; expected one that differs, such as ${{hydra.job.num}}"
            )
