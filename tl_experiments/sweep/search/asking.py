"""The next jobs of a search: asked for, composed, checked and added to the plan before any of them starts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.command_line import require_values
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member, label
from tl_experiments.config.ranges import lookup
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.sweep.hydra_files import HydraFiles, write_hydra_files
from tl_experiments.sweep.ledger import RUNNING
from tl_experiments.sweep.outcome import read_outcomes
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.sweep.planning import Compose, make_job, require_one_place
from tl_experiments.sweep.resume import Parse
from tl_experiments.sweep.search.settings import Search
from tl_experiments.sweep.search.space import corners, space_of, without_foreign
from tl_experiments.sweep.search.trials import Trial, read_trials

MOST_ATTEMPTS = 500  # to find a configuration that was not tried yet
EXHAUSTED = "further trials: the space has no other configuration that was found"


@dataclass(frozen=True)
class Asker:
    """Makes the plan of a search longer.

    Attributes:
        overrides: of the runs, as they were typed.
        compose: task overrides → configuration, with its node `hydra`.
        folder: of the sweep, absolute.
        n_jobs: asked for together, as they run together.
        stops: whether a job that failed ends the search.
        check: of a job with what needs heavy libraries; raises ConfigError.
    """

    overrides: tuple[Override, ...]
    compose: Compose
    folder: Path
    n_jobs: int
    stops: bool
    check: Callable[[Member], None]

    def check_ends(self, search: Search) -> int:
        """See that the ends of every parameter can be used; returns the most epochs of any job's last schedule.

        Raises:
            ConfigError: a line for each problem, with the first values that have it.
        """
        problems: dict[str, str] = {}
        jobs = []
        for index, values in enumerate(corners(search.space, swept=search.choices)):
            try:
                jobs.append(self._make(values, search, index=index)[0])
            except ConfigError as error:
                for line in str(error).splitlines():
                    problems.setdefault(line, _label(values))
        if problems:
            raise ConfigError("\n".join(f"{values}: {line}" for line, values in problems.items()))
        require_one_place(jobs)
        return max(job.config["epochs"] for job in jobs)

    def members_at_ends(self, plan: Plan) -> Iterator[Member]:
        """Yield the configurations of `check_ends` as jobs of a plan, which they are not."""
        search = plan.searched
        for values in corners(search.space, swept=search.choices):
            yield plan.member(self._make(values, search, index=0)[0], folder=self.folder)

    def ask(self, plan: Plan) -> tuple[Plan, HydraFiles]:
        """Return the plan with one more batch of jobs, and what Hydra would write for them; nothing is written.

        The plan of a search that has no other configuration is whole with the jobs that it has.
        """
        search = plan.searched
        number = len(plan.jobs)
        trials = read_trials(plan, self.folder, number=number)
        files: HydraFiles = {}
        search = replace(search, starts=(*search.starts, number))
        plan = replace(plan, search=search)
        for _ in range(min(self.n_jobs, search.num_trials - number)):
            job, plan = self._next(plan, trials, files)
            if job is None:
                search = replace(search, num_trials=len(plan.jobs))
                return replace(plan, search=search, dropped=(*plan.dropped, EXHAUSTED)), files
            trials.append(Trial(index=job.index, values=job.values, state=RUNNING))
        return plan, files

    def extend(self, plan: Plan) -> Plan | None:
        """Return the plan with one more batch, written; None where the search is over.

        Raises:
            ConfigError: the configuration files are not those with which the search began.
        """
        failed = any(not outcome.over for outcome in read_outcomes(plan, self.folder))
        if plan.is_whole or (self.stops and failed):
            return None
        self._require_same(plan)
        longer, files = self.ask(plan)
        write_hydra_files(files, folder=self.folder)
        longer.save(self.folder)
        return longer if len(longer.jobs) > len(plan.jobs) else None

    def _next(self, plan: Plan, trials: Sequence[Trial], files: HydraFiles) -> tuple[PlannedJob | None, Plan]:
        """Return the next job, None where none was found, and the plan with it, or with why others were left out."""
        from tl_experiments.sweep.search.study import propose  # noqa: PLC0415 - Optuna is optional

        search, index = plan.searched, len(plan.jobs)
        tried = [job.values for job in plan.jobs]
        for attempt in range(MOST_ATTEMPTS):
            values = propose(search, trials, attempt=attempt)
            if values in tried:
                continue
            tried.append(values)
            try:
                job, own_files = self._make(values, search, index=index)
                longer = replace(plan, jobs=(*plan.jobs, job), groups=(*plan.groups, (index,)))
                self.check(longer.member(job, folder=self.folder))
            except ConfigError as error:
                line = f"{_label(values)}: {str(error).splitlines()[0]}"
                plan = replace(plan, dropped=(*plan.dropped, line))
            else:
                files |= own_files
                return job, longer
        return None, plan

    def _make(self, values: Mapping[str, str], search: Search, *, index: int) -> tuple[PlannedJob, HydraFiles]:
        return make_job(
            list(self._lines(values, search)),
            compose=self.compose,
            index=index,
            folder=self.folder,
            swept=search.choices,
        )

    def _lines(self, values: Mapping[str, str], search: Search) -> Iterator[str]:
        """Yield an override for every key that was typed and that these values accept, in typed order."""
        typed = {
            override.get_key_element(): next(override.sweep_string_iterator())
            if override.is_discrete_sweep()
            else override.get_value_element_as_str()
            for override in self.overrides
            if override.get_key_element() not in search.choices
        }
        order = [override.get_key_element() for override in self.overrides]
        chosen = without_foreign({**typed, **values}, search.choices)
        for key in order:
            if key in chosen:
                yield key if key.startswith("~") else f"{key}={chosen[key]}"

    def _require_same(self, plan: Plan) -> None:
        """See that the files still give the first job; raises ConfigError."""
        first = plan.jobs[0]
        again, _ = self._make(first.values, plan.searched, index=0)
        if again.digest != first.digest:
            changed = ", ".join(_different(first.config, again.config))
            raise ConfigError(
                f"{plan.name}: the configuration files are not as when the search began ({changed}), so that new jobs "
                "could not be compared with those that have run; restore them, or search anew"
            )


def at_home(compose: Compose, plan: Plan) -> Compose:
    """Return a `compose` that keeps new jobs tracked, and their images found, where those of the plan are."""
    first, searched = plan.jobs[0].config, plan.searched.choices
    kept = ("tracking.uri", *(() if "dataset" in searched or "dataset.root" in searched else ("dataset.root",)))
    places = {key: place for key in kept if (place := lookup(first, key)) is not None}

    def composed(overrides: list[str]) -> DictConfig:
        config = compose(overrides)
        for key, place in places.items():
            OmegaConf.update(config, key, place)
        return config

    return composed


def require_same_space(plan: Plan, *, parse: Parse) -> None:
    """See that what a search would compose is data, and its space what its overrides say, whoever wrote the plan.

    Raises:
        ConfigError: the plan was changed by hand, or the options that a glob finds are others now.
    """
    require_values(plan.overrides)
    if plan.search is None or space_of(parse(list(plan.overrides))) != plan.search.space:
        raise ConfigError(f"{plan.name}: its overrides no longer say what its plan searches; expected a new search")


def _label(values: Mapping[str, str]) -> str:
    return " ".join(label(key, value) for key, value in values.items())


def _different(first: Mapping[str, Any], again: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the keys whose values differ."""
    for key in dict.fromkeys((*first, *again)):
        old, new = first.get(key), again.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _different(old, new, f"{path}{key}.")
        elif fingerprint({"": old}) != fingerprint({"": new}):
            yield f"{path}{key}"
