"""`python run.py resume=...`: the run that was stopped, as it was begun, whatever the configuration files say today."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from tl_experiments.config.checks import check, lookup
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import GROUPS, Member
from tl_experiments.config.record import checked_record, read_record
from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep.folder import LATEST, is_run_id
from tl_experiments.sweep.job import Job
from tl_experiments.sweep.outcome import is_finished, read_result

KEY = "resume"
RUNS = Path("outputs/runs")
CONFIG = "config.yaml"
# What may be typed beside `resume`: it says where and how the run goes on, not what it is.
MAY_CHANGE = ("runtime.", "checkpoint.", "dataset.root", "dataset.download", "tracking.uri")
MAY_CHANGE_TOLD = "runtime.*, checkpoint.*, dataset.root, dataset.download and tracking.uri"


def is_resume(arguments: Sequence[str]) -> bool:
    """Whether a command line goes on with a run; sweeps have `sweep.resume`."""
    return any(_key(argument) == KEY for argument in arguments) and not {"-m", "--multirun"} & {*arguments}


def resumed_job(arguments: Sequence[str]) -> Job | str:
    """Return what is left of a run, or a line that says why nothing is.

    Args:
        arguments: `resume=PATH|RUN_ID|latest`, and overrides that must agree with the run or may change.

    Raises:
        ConfigError: there is no such run, it belongs to a sweep, or an override is not what the run was begun with.
        SettingError: its record cannot be read.
    """
    overrides = _parse([argument for argument in arguments if not argument.startswith("-")])
    typed = {override.get_key_element(): override for override in overrides}
    folder = _find(typed.pop(KEY).get_value_element_as_str())
    from tl_experiments.tracking.run_record import RunRecord  # noqa: PLC0415 - errors so far were quick

    record = RunRecord.load(folder)
    if record.sweep_id is not None:
        raise ConfigError(f"{folder}: a job of a sweep; it goes on by: python run.py -m sweep.resume={folder.parent}")
    result = read_result(folder)
    if is_finished(result, uid=record.uid):
        figures = f"best val/acc {result['val/acc_best']:.4f}, test/acc {result['test/acc']:.4f}"
        return f"{folder}: the run has finished: {figures}"
    allowed = typed.pop("allow_targets", None)
    config = read_record(folder / CONFIG, allow_targets=list(allowed.value()) if allowed else ())  # type: ignore[arg-type]
    member = Member(
        config=_with(config, typed, choices=record.choices, folder=folder),
        choices=dict(record.choices),
        folder=folder,
        name=record.name,
        uid=record.uid,
    )
    return Job(members=(member,))


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+")


def _parse(arguments: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _find(named: str) -> Path:
    """Return the folder of a run that is named by its path, its MLflow id or as the latest."""
    named = named.strip("'\"")
    if named == LATEST:
        return _latest()
    folder = Path(named).expanduser().absolute()
    if is_run_id(named):
        from tl_experiments.tracking.find_run import folder_of_run  # noqa: PLC0415 - MLflow is slow to import

        return folder_of_run(named)
    return folder


def _latest() -> Path:
    """Return the run that began last; what is no run's folder, or cannot be read, is none."""
    from tl_experiments.tracking.run_record import FILE, RunRecord  # noqa: PLC0415 - as above

    began: dict[str, Path] = {}
    for path in RUNS.glob(f"*/{FILE}"):
        with suppress(SettingError):
            began[RunRecord.load(path.parent).began] = path.parent
    if not began:
        raise ConfigError(f"resume=latest: no run began in {RUNS.absolute()}; expected its folder instead")
    return began[max(began)].absolute()


def _with(
    config: Mapping[str, Any], typed: Mapping[str, Override], *, choices: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """Return the run's configuration with what was typed beside `resume`, as far as that may change.

    Raises:
        ConfigError: a line for each override that is not what the run was begun with.
    """
    changed, problems = deepcopy(dict(config)), []
    for key, override in typed.items():
        value, told = override.value(), override.get_value_element_as_str()
        was = choices.get(key) if key in GROUPS else lookup(config, key)
        if was == value:
            continue
        group, _, name = key.partition(".")
        if key.startswith(MAY_CHANGE) and name in changed[group]:
            changed[group][name] = value
        else:
            problems.append(
                f"{key}={told}: the run has {key}={was}; a run that goes on may change {MAY_CHANGE_TOLD} only"
            )
    if problems:
        raise ConfigError("\n".join(problems))
    changed = checked_record(changed, allow_targets=config["allow_targets"])
    check({**changed, "resume": None, "sweep": {}}, folder=folder)
    return changed
