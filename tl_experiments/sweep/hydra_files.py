"""What Hydra writes into the folder of a run, written for every job of a plan."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, flag_override

from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.plan import Plan


def write_hydra_files(plan: Plan, configs: Mapping[int, DictConfig], *, folder: Path) -> None:
    """Write for each job what Hydra writes for a run: `.hydra/config.yaml`, `hydra.yaml`, `overrides.yaml`.

    Args:
        plan: of the sweep.
        configs: index of a job → what Hydra composed for it.
        folder: of the sweep.
    """
    for index, config in configs.items():
        place = folder / plan.jobs[index].folder
        with flag_override(config, ["struct", "readonly"], [False, False]):
            config.hydra.runtime.output_dir = str(place)
        if config.hydra.output_subdir is None:
            continue
        target = place / str(config.hydra.output_subdir)
        target.mkdir(parents=True, exist_ok=True)
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        hydra = OmegaConf.masked_copy(config, ["hydra"])
        for name, node in (("config", task), ("hydra", hydra), ("overrides", config.hydra.overrides.task)):
            publish_text(target / f"{name}.yaml", OmegaConf.to_yaml(node))
