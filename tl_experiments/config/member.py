"""One job as Hydra composed it, turned into plain values: the last place that sees a DictConfig."""

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.checks import check
from tl_experiments.config.environment import require_no_secrets
from tl_experiments.config.errors import ConfigError

GROUPS = (
    "backbone", "strategy", "head", "optimizer", "scheduler", "dataset", "augmentation", "runtime", "tracking",
    "experiment", "grid",
)  # fmt: skip
UNNAMED = ("tracking", "sweep")  # where a run is tracked, or how a sweep goes about it, says nothing of the run


@dataclass(frozen=True)
class Member:
    """One run of a job: what was asked for, where it writes and how it is called."""

    config: dict[str, Any]  # resolved, plain containers, enums by name
    choices: dict[str, str]  # group -> chosen option
    folder: Path  # absolute; exists
    name: str  # `2 finetune lr=0.001`
    uid: str  # the run's own id, known before any tracking store is asked
    sweep_id: str | None = None
    changed: tuple[str, ...] = ()  # a line for each value that the run goes on with and did not begin with
    host: Path | None = None  # folder of the first member, if it is another one that this one trains together with


def as_plain(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Return plain values for JSON, from which `from_plain` makes the members again."""
    return [
        {**vars(member), "folder": str(member.folder), "host": member.host and str(member.host)} for member in members
    ]


def from_plain(values: Sequence[Mapping[str, Any]]) -> tuple[Member, ...]:
    """Return members from what `as_plain` made of them in another process."""
    return tuple(
        Member(
            **{
                **own,
                "folder": Path(own["folder"]),
                "host": own["host"] and Path(own["host"]),
                "changed": tuple(own["changed"]),
            }
        )
        for own in values
    )


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a config into plain containers; enums become their lower-case names."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    return _named(container) if isinstance(container, dict) else {}


def _named(node: Any) -> Any:
    """Return the same with keys that are texts: a class may be called 0, which was read as a number."""
    return {str(key): _named(value) for key, value in node.items()} if isinstance(node, dict) else node


def run_name(overrides: Sequence[str], *, index: int | None = None) -> str:
    """Name a run by its index in the sweep and the values that it was given: `2 finetune lr=0.001`.

    Args:
        overrides: those that tell it from others; a path is told by its last part, where it is tracked not at all.
        index: in the sweep; None where there is none.
    """
    words = [] if index is None else [str(index)]
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.get_key_element(), override.get_value_element_as_str()
        if key.split(".")[0] not in UNNAMED:
            words.append(label(key, value))
    return " ".join(words) or "defaults"


def label(key: str, value: str) -> str:
    """Return a value as names and tables show it: an option of a group speaks for itself.

    >>> label("strategy", "finetune"), label("lr", "0.001"), label("dataset.root", "/data/birds/")
    ('finetune', 'lr=0.001', 'dataset.root=birds')
    """
    value = value.rstrip("/").rpartition("/")[2] if "/" in value else value
    return value if key in GROUPS else f"{key}={value}"


def make_uid() -> str:
    """Return an id for a run or a sweep, known before any tracking store is asked."""
    return uuid.uuid4().hex


def chosen_options(hydra: Any) -> dict[str, str]:
    """Return the option of each group of a composed config's `hydra` node."""
    return {group: str(hydra.runtime.choices[group]) for group in GROUPS if hydra.runtime.choices.get(group)}


def checked(config: DictConfig, *, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plain values of one run, and those of the node `sweep`, which are no part of it.

    Args:
        config: composed, without the node `hydra`.
        folder: where the run will write.

    Raises:
        ConfigError: a value is out of range or from the environment, a rule across groups is broken, or a target is
            not allowed.
        omegaconf.MissingMandatoryValue: a value such as `dataset.root` was not given.
    """
    values = plain(config)
    require_no_secrets(config)
    check(values, folder=folder)
    for node in (values, values["optimizer"]):
        if isinstance(node.get("lr"), int):  # it has no type, because it may be `auto`: 1 and 1.0 are one rate
            node["lr"] = float(node["lr"])
    if (resume := values.pop("resume")) is not None:
        raise ConfigError(
            f"resume={resume}: goes on with one run as it was begun, without flags; "
            "a sweep goes on by -m sweep.resume=FOLDER"
        )
    return values, values.pop("sweep")


def check_before_folder(config: DictConfig) -> None:
    """Check the config that Hydra has composed for one run, the node `hydra` included, before it makes a folder.

    Raises:
        ConfigError, omegaconf.MissingMandatoryValue: as `checked`.
    """
    state, config = HydraConfig.instance(), copy.deepcopy(config)
    before = state.cfg
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config.hydra.runtime, False)
    try:
        state.set_config(config)  # where `${hydra:...}` looks
        folder = Path(config.hydra.run.dir).absolute()
        config.hydra.runtime.output_dir = str(folder)
        state.set_config(config)
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        _, sweep = checked(task, folder=folder)
    finally:
        state.cfg = before
    require_no_sweep(sweep, choices=config.hydra.runtime.choices)
    if sweep["group"] is not None:
        raise ConfigError("sweep.group is for the processes that a sweep starts; expected -m with sweep.resume=PATH")


def require_no_sweep(sweep: Mapping[str, Any], *, choices: Mapping[str, Any]) -> None:
    """Raise ConfigError where something was asked of a sweep and one run is meant."""
    if recipe := choices.get("grid"):
        raise ConfigError(f"grid={recipe}: a sweep, not one run; expected -m beside it")
    if sweep["resume"] is not None or sweep["dry_run"]:
        raise ConfigError("sweep.resume and sweep.dry_run are about sweeps; expected -m beside them")


def current_member(config: DictConfig) -> Member:
    """Check the composed config of the running Hydra job, one run on its own, and return it as a plain value.

    Raises:
        ConfigError: a value is out of range, a rule across groups is broken, or a target is not allowed.
        omegaconf.MissingMandatoryValue: a value such as `dataset.root` was not given.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir).absolute()
    values, sweep = checked(config, folder=folder)
    if hydra.mode != RunMode.MULTIRUN:
        require_no_sweep(sweep, choices=hydra.runtime.choices)
    return Member(
        config=values,
        choices=chosen_options(hydra),
        folder=folder,
        name=run_name(hydra.overrides.task, index=hydra.job.num if hydra.mode == RunMode.MULTIRUN else None),
        uid=make_uid(),
    )
