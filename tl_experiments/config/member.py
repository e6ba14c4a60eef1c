"""One job as Hydra composed it, turned into plain values: the last place that sees a DictConfig."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.checks import check

GROUPS = (
    "backbone", "strategy", "optimizer", "scheduler", "dataset", "augmentation", "runtime", "tracking", "experiment",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One run of a job: what was asked for, where it writes and how it is called."""

    config: dict[str, Any]  # resolved, plain containers, enums by name
    choices: dict[str, str]  # group -> chosen option
    folder: Path  # absolute; exists
    name: str  # `2 finetune lr=0.001`
    sweep_id: str | None  # name of the sweep's folder


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config into plain containers; enums become their lower-case names."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    return {str(key): value for key, value in container.items()} if isinstance(container, dict) else {}


def _swept_keys(sweep_dir: Path) -> set[str]:
    """Read from the sweep's `multirun.yaml` which keys were given several values."""
    path = sweep_dir / "multirun.yaml"
    if not path.is_file():
        return set()
    typed = OmegaConf.select(OmegaConf.load(path), "hydra.overrides.task", default=[])
    return {override.get_key_element() for override in _parse(typed) if override.is_sweep_override()}


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def run_name(overrides: Sequence[str], *, index: int | None, swept: set[str]) -> str:
    """Name a run by its index in the sweep and the values that vary: `2 finetune lr=0.001`.

    A path is told by its last part, and where the run is tracked not at all.
    """
    words = [] if index is None else [str(index)]
    for override in _parse(overrides):
        key, value = override.get_key_element(), override.get_value_element_as_str()
        if key in swept or (index is None and key.split(".")[0] != "tracking"):
            value = value.rstrip("/").rpartition("/")[2] if "/" in value else value
            words.append(value if key in GROUPS else f"{key}={value}")
    return " ".join(words) or "defaults"


def current_member(config: DictConfig) -> Member:
    """Check the composed config of the running Hydra job and return it as a plain value.

    Raises:
        ConfigError: a value is out of range, a rule across groups is broken, or a target is not allowed.
        omegaconf.MissingMandatoryValue: a value such as `dataset.root` was not given.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir).absolute()
    values = plain(config)
    check(values, folder=folder)
    overrides = tuple(hydra.overrides.task)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    sweep_dir = Path(hydra.sweep.dir).absolute()
    return Member(
        config=values,
        choices={group: str(hydra.runtime.choices[group]) for group in GROUPS if hydra.runtime.choices.get(group)},
        folder=folder,
        name=run_name(
            overrides, index=hydra.job.num if in_sweep else None, swept=_swept_keys(sweep_dir) if in_sweep else set()
        ),
        sweep_id=sweep_dir.name if in_sweep else None,
    )
