"""What Hydra writes into the folder of a run, written for every job of a plan."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, flag_override

from tl_experiments.runtime.files import publish_text

HydraFiles = dict[str, str]  # path below the folder of a sweep → text; a hundredth of the memory of what Hydra composed


def hydra_files(config: DictConfig, *, folder: Path, job_folder: str) -> HydraFiles:
    """Return what Hydra would write for a run: `.hydra/config.yaml`, `hydra.yaml`, `overrides.yaml`.

    Args:
        config: as Hydra composed it.
        folder: of the sweep, absolute.
        job_folder: of the job, below it.
    """
    with flag_override(config, ["struct", "readonly"], [False, False]):
        config.hydra.runtime.output_dir = str(folder / job_folder)
    if config.hydra.output_subdir is None:
        return {}
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    hydra = OmegaConf.masked_copy(config, ["hydra"])
    nodes = {"config": task, "hydra": hydra, "overrides": config.hydra.overrides.task}
    place = Path(job_folder, str(config.hydra.output_subdir))
    return {str(place / f"{name}.yaml"): OmegaConf.to_yaml(node) for name, node in nodes.items()}


def write_hydra_files(files: Mapping[str, str], *, folder: Path) -> None:
    """Write such files into the folder of their sweep."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(path, text)
