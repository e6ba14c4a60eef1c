"""What a sweep is going to do: its jobs as plain values, kept in one file.

It is written once and never changed, but for the plan of a search, to which the jobs of each batch are added.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Self

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.record import checked_record
from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.search.settings import Search

FILE = "plan.json"
VERSION = 1


@dataclass(frozen=True)
class PlannedJob:
    """One run that is to be made.

    Attributes:
        index: position in the plan, from 0.
        name: index and the values that vary, `2 finetune lr=0.001`.
        overrides: as Hydra takes them, those of Hydra itself and of the sweep left out.
        values: key → value as typed, of the keys that vary over the sweep and that this job accepts, in typed order.
        config: resolved, plain containers; what the run gets whatever happens to the files that it came from.
        choices: group → chosen option.
        uid: of the run.
        folder: of its files, relative to the sweep's.
        digest: of `config`, in hexadecimal.
    """

    index: int
    name: str
    overrides: tuple[str, ...]
    values: dict[str, str]
    config: dict[str, Any]
    choices: dict[str, str]
    uid: str
    folder: str
    digest: str

    def __post_init__(self) -> None:
        """Keep the files of a run inside the folder of its sweep, whoever wrote the plan.

        Raises:
            ConfigError: its folder lies elsewhere.
            TypeError: it has no configuration.
        """
        if not isinstance(self.config, dict) or not isinstance(self.config.get("allow_targets"), list):
            raise TypeError(f"job {self.index} has no configuration")
        path = PurePath(self.folder)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in self.folder:
            raise ConfigError(
                f"hydra.sweep.subdir={self.folder!r}: not a folder below the sweep's; expected one such as {self.index}"
            )


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
        uid: of the sweep.
        name: for people; the name of its folder.
        created: ISO 8601 time in UTC.
        overrides: as they were typed, without those of Hydra and of the sweep itself.
        hydra_overrides: as they were typed.
        settings: the values of the node `sweep`.
        code: version and git commit of the code, and the versions of the libraries that results depend on.
        jobs: in order.
        groups: indices of the jobs that one launched process runs, its host first.
        dropped: one line for each combination or key that was left out, and why.
        search: how further jobs are found; None where all are planned from the beginning.
    """

    uid: str
    name: str
    created: str
    overrides: tuple[str, ...]
    hydra_overrides: tuple[str, ...]
    settings: dict[str, Any]
    code: dict[str, str]
    jobs: tuple[PlannedJob, ...]
    groups: tuple[tuple[int, ...], ...]
    dropped: tuple[str, ...] = ()
    search: Search | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no job is going to be added."""
        return self.search is None or len(self.jobs) >= self.search.num_trials

    @property
    def searched(self) -> Search:
        """How jobs are found; of a plan that is a search alone."""
        if self.search is None:
            raise ValueError(f"{self.name}: no search")
        return self.search

    @property
    def varied(self) -> dict[str, tuple[str, ...]]:
        """The keys that vary, with their different values in the order in which they come."""
        searched = self.search.space if self.search else ()
        values: dict[str, dict[str, None]] = {parameter.key: {} for parameter in searched}
        for job in self.jobs:
            for key, value in job.values.items():
                values.setdefault(key, {})[value] = None
        return {key: tuple(different) for key, different in values.items()}

    def host(self, job: PlannedJob) -> PlannedJob:
        """Return the job in whose folder the process of a job's group writes its log."""
        return self.jobs[self._host_of[job.index]]

    @cached_property
    def _host_of(self) -> dict[int, int]:
        """Index of a job → that of the first of its group; looked for anew, it would take a sweep's length squared."""
        return {index: group[0] for group in self.groups for index in group}

    def member(self, job: PlannedJob, *, folder: Path) -> Member:
        """Return a job as the story of a run takes it.

        Args:
            job: of this plan.
            folder: of the sweep.
        """
        return Member(
            config=job.config,
            choices=job.choices,
            folder=folder / job.folder,
            name=job.name,
            uid=job.uid,
            sweep_id=self.uid,
            host=folder / self.host(job).folder if self.groups else None,
        )

    def without_own_code(self) -> Self:
        """Return the plan with no other code allowed than the program's own, since nobody has said so now."""
        return replace(self, jobs=tuple(replace(job, config={**job.config, "allow_targets": []}) for job in self.jobs))

    def save(self, folder: Path) -> None:
        """Write the plan; from then on the sweep exists and can be resumed."""
        publish_text(folder / FILE, json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the plan of a sweep's folder.

        Raises:
            ConfigError: there is none, or another version of the program wrote it.
        """
        path = folder / FILE
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{folder}: no sweep was planned here ({FILE} is missing); expected a folder of one"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as a plan: {error}") from error
        version = fields.pop("version", None) if isinstance(fields, Mapping) else None
        if version != VERSION:
            raise ConfigError(f"{path}: a plan of format {version}; this program reads format {VERSION}")
        try:
            jobs = tuple(PlannedJob(**{**job, "overrides": tuple(job["overrides"])}) for job in fields.pop("jobs"))
            groups = tuple(tuple(group) for group in fields.pop("groups"))
            search = Search.of(found) if (found := fields.pop("search", None)) else None
            lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
            plan = cls(**{**fields, **lists, "jobs": jobs, "groups": groups, "search": search})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path}: was changed by hand, so that it is no plan any more: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        for job in plan.jobs:
            if not (folder / job.folder).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{folder / job.folder}: leads out of the folder of the sweep; expected no such link")
        return plan

    def require_trusted(self, folder: Path, *, allow_targets: Sequence[str]) -> None:
        """See that what the plan would run has passed the checks of what is typed, whoever wrote it.

        Args:
            folder: of the sweep, for the message.
            allow_targets: prefixes of the caller's own code; those of the plan must be among them.

        Raises:
            ConfigError: one line per problem.
        """
        problems: dict[str, str] = {}  # line -> the first job that has it
        for job in self.jobs:
            try:
                if foreign := sorted(set(map(str, job.config["allow_targets"])) - set(allow_targets)):
                    raise ConfigError(
                        f"runs code of {', '.join(foreign)}; expected allow_targets=[...] to name it again"
                    )
                checked_record(job.config, allow_targets=allow_targets)
            except ConfigError as error:
                for line in str(error).splitlines():
                    problems.setdefault(line, job.name)
        if problems:
            raise ConfigError("\n".join(f"{folder / FILE}: job {name}: {line}" for line, name in problems.items()))
