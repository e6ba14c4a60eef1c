"""What launchers get instead of Hydra's config loader: the configurations of the plan; no file is read again."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, flag_override

from tl_experiments.sweep.plan import FILE, Plan
from tl_experiments.sweep.plan_text import spans

GROUP_KEY = "sweep.group"


def group_override(group: int) -> str:
    """Return the one override that names a launched job."""
    return f"{GROUP_KEY}={group}"


@lru_cache(maxsize=1)
def _plan(folder: Path, _written: int) -> Plan:
    """Return the plan, read once for all jobs that are launched until it is written anew."""
    return Plan.load(folder)


@dataclass(frozen=True)
class PlannedConfigs:
    """Stands where launchers expect a `ConfigLoader`, and takes only the overrides of `group_override`.

    Attributes:
        folder: of the sweep, absolute.
    """

    folder: Path

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of a group's first job, with the folder and the group that it belongs to."""
        [override] = sweep_overrides
        group = int(override.removeprefix(f"{GROUP_KEY}="))
        plan = _plan(self.folder, (self.folder / FILE).stat().st_mtime_ns)
        indices = plan.groups[group]
        job = plan.jobs[indices[0]]
        config = copy.deepcopy(master_config)
        with flag_override(config, ["struct", "readonly"], [False, False]):
            for key in [key for key in config if key not in ("hydra", "sweep")]:
                del config[key]
            config.merge_with(job.config)
            config.sweep.group = group
            hydra = config.hydra
            hydra.sweep.dir, hydra.sweep.subdir = str(self.folder), job.folder
            hydra.output_subdir = None  # the plan has written what Hydra would write there
            # Launchers show it; what each job of a group is told, it reads in the plan.
            hydra.overrides.task = list(job.overrides) if len(indices) == 1 else [f"jobs {spans(indices)} together"]
            hydra.runtime.choices.update(job.choices)
        return config
