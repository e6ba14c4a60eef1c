"""Hydra's sweeper for `-m`: the command line becomes a plan, or goes on with one; then the plan is conducted."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from tl_experiments.config.checks import check_ranges
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member, plain
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.full_error import given_back
from tl_experiments.runtime.importing import importing
from tl_experiments.runtime.signals import terminable
from tl_experiments.sweep.causes import MENDABLE
from tl_experiments.sweep.composer import Composer
from tl_experiments.sweep.folder import claimed, find_sweep, require_unplanned
from tl_experiments.sweep.hydra_files import HydraFiles, write_hydra_files
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.planned_configs import PlannedConfigs
from tl_experiments.sweep.planning import code_version, make_plan
from tl_experiments.sweep.resume import changed_code, disagreements, forgotten, settings_now
from tl_experiments.sweep.search.asking import Asker, at_home, require_same_space
from tl_experiments.sweep.typed import Typed, sort_overrides, typed_over
from tl_experiments.tracking.address import require_own_server

EXTRAS = {"hydra_joblib_launcher": "joblib"}


class PlannedSweeper(Sweeper):
    """Every combination of the values that are given, checked before the first of them starts."""

    searches = False  # whether values may be intervals

    def __init__(self, *, params: Mapping[str, Any] | None) -> None:
        """Keep `params`: key → values, as if they were typed; what is typed for the same key takes their place."""
        self._params = [f"{key}={'null' if value is None else value}" for key, value in (params or {}).items()]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._hydra_context, self._task_function, self._config = hydra_context, task_function, config
        self._compose = self._composer()

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Run the sweep.

        Args:
            arguments: overrides as they were typed, without Hydra's own.

        Raises:
            ConfigError: a line for each problem; nothing was started.
            RunFailed: a line for each job that did not finish.
        """
        start = time.monotonic()
        with given_back(), terminable():
            typed = sort_overrides(self._parse(arguments), searches=self.searches)
            settings = plain(self._config.sweep)
            of_hydra = {part: plain(self._config.hydra[part]) for part in ("sweeper", "launcher")}
            check_ranges({"sweep": settings, "hydra": of_hydra})
            resume = settings.pop("resume")
            with _defects_marked():
                if resume is not None:
                    return self._go_on(str(resume), typed, settings, start=start)
                planned = typed_over(self._parse(self._params), typed=self._parse(arguments))
                return self._begin(sort_overrides(planned, searches=self.searches), settings, start=start)

    def _begin(self, typed: Typed, settings: dict[str, Any], *, start: float) -> Sequence[JobReturn]:
        """Plan and check all jobs; only then is anything written."""
        folder = Path(self._config.hydra.sweep.dir).absolute()
        require_unplanned(folder)
        plan, files = self._make_plan(typed, settings, folder=folder)
        launcher = None if settings["dry_run"] else self._launcher(folder)  # it imports while the plan is checked
        with importing():
            from tl_experiments.sweep.conduct import conduct  # noqa: PLC0415 - errors so far were quick

        plan, files = self._settle(plan, files, folder=folder)
        if launcher is None:
            return []
        with claimed(folder):
            require_unplanned(folder)
            write_hydra_files(files, folder=folder)
            publish_text(folder / "multirun.yaml", OmegaConf.to_yaml(self._config))
            plan.save(folder)
            extend = self._extension(plan, settings, folder=folder)
            return conduct(plan, folder, launcher=launcher, n_jobs=settings["n_jobs"], start=start, extend=extend)

    def _make_plan(self, typed: Typed, settings: dict[str, Any], *, folder: Path) -> tuple[Plan, HydraFiles]:
        """Return the plan as far as it can be made quickly, and what Hydra would write for its jobs."""
        with _planning_bar() as on_progress:
            return make_plan(
                typed,
                compose=self._compose,
                folder=folder,
                hydra_overrides=self._config.hydra.overrides.hydra,
                settings=settings,
                on_progress=on_progress,
            )

    def _settle(self, plan: Plan, files: HydraFiles, *, folder: Path) -> tuple[Plan, HydraFiles]:
        """Check and decide what needs heavy libraries, and print the plan."""
        from tl_experiments.sweep.conduct import settle_plan  # noqa: PLC0415 - errors so far were quick

        return settle_plan(plan, folder), files

    def _composer(self) -> Composer:
        """Make what composes jobs from the configuration files as they are now."""
        return Composer(self._hydra_context.config_loader, self._config)

    def _asker(self, plan: Plan, settings: Mapping[str, Any], *, folder: Path) -> Asker:
        """Make what finds the next jobs of a search."""
        return Asker(
            overrides=tuple(self._parse(list(plan.overrides))),
            compose=self._compose,
            folder=folder,
            n_jobs=settings["n_jobs"],
            stops=settings["on_error"] == "stop",
            check=_check_buildable,
        )

    def _extension(
        self, plan: Plan, settings: Mapping[str, Any], *, folder: Path
    ) -> Callable[[Plan], Plan | None] | None:
        """Return what makes a plan longer when its jobs have ended; None where it is whole from the beginning."""
        if plan.search is None:
            return None

        asker = self._asker(plan, settings, folder=folder)

        def extend(so_far: Plan) -> Plan | None:
            compose = self._composer()  # another for each batch: files may have been edited
            return replace(asker, compose=at_home(compose, so_far)).extend(so_far)

        return extend

    def _go_on(self, named: str, typed: Typed, settings: dict[str, Any], *, start: float) -> Sequence[JobReturn]:
        """Do what is left of a plan that was made before; its configuration files are not read again."""
        folder = find_sweep(named, sweeps=Path(self._config.hydra.sweep.dir).absolute().parent)
        plan = Plan.load(folder)
        plan.require_trusted(folder, allow_targets=list(self._config.allow_targets))
        if not any(override.get_key_element() == "tracking.uri" for override in typed.run):
            for kept in {job.config["tracking"].get("uri") for job in plan.jobs} - {None}:
                require_own_server(kept, source=folder, expected="tracking.uri={} beside sweep.resume")
        if problems := disagreements(plan, typed, parse=self._parse):
            raise ConfigError("\n".join(problems))
        if plan.search is not None:
            require_same_space(plan, parse=self._parse)
        plan = self._continued(plan)
        settings = settings_now(plan, settings, typed.sweep)
        for key, value in {**settings, "resume": None, "group": None}.items():
            OmegaConf.update(self._config, f"sweep.{key}", value)
        if settings["dry_run"]:
            from tl_experiments.sweep.conduct import show_rest  # noqa: PLC0415 - errors so far were quick

            show_rest(plan, folder)
            return []
        with claimed(folder):
            launcher = self._launcher(folder)
            with importing():
                from tl_experiments.sweep.conduct import conduct  # noqa: PLC0415 - errors so far were quick

            changed = [*changed_code(plan, code_version()), *forgotten(plan, self._config.hydra.overrides.hydra)]
            if plan.search is not None:
                plan.save(folder)  # with as many trials as are wanted now
            return conduct(
                plan,
                folder,
                launcher=launcher,
                n_jobs=settings["n_jobs"],
                start=start,
                changed=changed,
                extend=self._extension(plan, settings, folder=folder),
            )

    def _continued(self, plan: Plan) -> Plan:
        """Return a plan with what was typed now for the sweeper itself."""
        return plan

    def _parse(self, lines: list[str]) -> list[Override]:
        """Parse overrides with the options of groups at hand, which globs need."""
        return OverridesParser.create(config_loader=self._hydra_context.config_loader).parse_overrides(lines)

    def _launcher(self, folder: Path) -> Launcher:
        """Make the launcher that was chosen, which sees the jobs of the plan and nothing else."""
        self._config.hydra.sweep.dir = str(folder)
        context = HydraContext(config_loader=PlannedConfigs(folder), callbacks=self._hydra_context.callbacks)  # type: ignore[arg-type]
        target = str(self._config.hydra.launcher._target_)
        try:
            return Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=self._task_function, config=self._config
            )
        except RuntimeError as error:
            extra = next((extra for package, extra in EXTRAS.items() if package in target), None)
            if extra is None:
                raise
            raise ConfigError(
                f"hydra/launcher: {target} is not installed; install it by: pip install -e '.[{extra}]'"
            ) from error


def _check_buildable(member: Member) -> None:
    from tl_experiments import build  # noqa: PLC0415 - a config error must not wait for torch

    build.check_buildable(member)


@contextmanager
def _defects_marked() -> Iterator[None]:
    """Tell errors of the program, whose traceback is wanted, from those that Hydra raises for wrong input."""
    try:
        yield
    except MENDABLE:
        raise
    except Exception as error:
        error.is_defect = True  # type: ignore[attr-defined]
        raise


@contextmanager
def _planning_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, all) that draws a bar on a terminal, for plans that take long."""
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("planning", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
