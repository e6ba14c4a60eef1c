"""Hydra's sweeper for a search: the command line becomes a space, from which jobs are drawn while others end."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.schema import Pruner, SearchSampler
from tl_experiments.sweep.hydra_files import HydraFiles
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.planning import empty_plan
from tl_experiments.sweep.search.settings import Search
from tl_experiments.sweep.search.space import space_of
from tl_experiments.sweep.sweeper import PlannedSweeper
from tl_experiments.sweep.typed import Typed

OWN = "hydra.sweeper."


class OptunaSweeper(PlannedSweeper):
    """As many jobs as are asked for, each found from what those before it came to; the highest best val/acc wins."""

    searches = True

    def __init__(
        self,
        *,
        num_trials: int,
        sampler: SearchSampler,
        n_startup_trials: int,
        pruner: Pruner,
        min_trials: int,
        min_epochs: int,
        seed: int,
        params: Mapping[str, Any] | None,
    ) -> None:
        """Keep the settings; all but `params` are those of `Search`."""
        super().__init__(params=params)
        self._search = Search(
            num_trials=num_trials,
            sampler=sampler.name,
            n_startup_trials=n_startup_trials,
            pruner=pruner.name,
            min_trials=min_trials,
            min_epochs=min_epochs,
            seed=seed,
        )

    def _make_plan(self, typed: Typed, settings: dict[str, Any], *, folder: Path) -> tuple[Plan, HydraFiles]:
        """Return a plan without jobs, once the ends of the space are known to be usable."""
        from tl_experiments.sweep.search import study  # noqa: F401, PLC0415 - it says at once if Optuna is missing

        search = replace(self._search, space=space_of(typed.run))
        hydra_overrides = self._config.hydra.overrides.hydra
        plan = empty_plan(typed, folder=folder, hydra_overrides=hydra_overrides, settings=settings)
        max_epochs = self._asker(plan, settings, folder=folder).check_ends(search)
        return replace(plan, search=replace(search, max_epochs=max_epochs)), {}

    def _settle(self, plan: Plan, files: HydraFiles, *, folder: Path) -> tuple[Plan, HydraFiles]:
        """Ask for the first batch."""
        from tl_experiments.sweep.conduct import require_buildable  # noqa: PLC0415 - errors so far were quick

        asker = self._asker(plan, plan.settings, folder=folder)
        require_buildable(list(asker.members_at_ends(plan)))
        plan, files = asker.ask(plan)
        return super()._settle(plan, files, folder=folder)

    def _continued(self, plan: Plan) -> Plan:
        """Take a new number of trials; every other setting is the plan's, and must agree where it was typed."""
        typed = OverridesParser.create().parse_overrides(
            [line for line in self._config.hydra.overrides.hydra if line.startswith(OWN)]
        )
        keys = [key for override in typed if (key := override.get_key_element().removeprefix(OWN)) != "params"]
        if plan.search is None:
            return plan
        now, then = asdict(self._search), asdict(plan.search)
        problems = [
            f"{OWN}{key}={now[key]}: the plan of {plan.name} has {then[key]}; leave it out, or search anew"
            for key in keys
            if key != "num_trials" and now[key] != then[key]
        ]
        if problems:
            raise ConfigError("\n".join(problems))
        num_trials = now["num_trials"] if "num_trials" in keys else plan.search.num_trials
        return replace(plan, search=replace(plan.search, num_trials=num_trials))
