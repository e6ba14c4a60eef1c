"""`python run.py resume=...`: the run that was stopped, as it was begun, whatever the configuration files say today."""

from collections.abc import Sequence

from tl_experiments.config.changes import MAY_CHANGE, parse_overrides, with_changes
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.record import read_record
from tl_experiments.sweep.job import Job
from tl_experiments.tracking.address import require_own_server
from tl_experiments.tracking.named_run import run_folder
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.run_record import RunRecord

KEY = "resume"
CONFIG = "config.yaml"


def is_resume(arguments: Sequence[str]) -> bool:
    """Whether a command line goes on with a run; sweeps have `sweep.resume`."""
    return any(_key(argument) == KEY for argument in arguments) and not {"-m", "--multirun"} & {*arguments}


def resumed_job(arguments: Sequence[str]) -> Job | str:
    """Return what is left of a run, or a line that says why nothing is.

    Args:
        arguments: `resume=PATH|RUN_ID|latest`, and overrides that must agree with the run or may change.

    Raises:
        ConfigError: it belongs to a sweep, or an override is not what the run was begun with.
        SettingError: there is no such run, or its record cannot be read.
    """
    typed = parse_overrides([argument for argument in arguments if not argument.startswith("-")])
    folder = run_folder(typed.pop(KEY).get_value_element_as_str().strip("'\""))
    record = RunRecord.load(folder)
    if record.sweep_id is not None:
        raise ConfigError(f"{folder}: a job of a sweep; it goes on by: python run.py -m sweep.resume={folder.parent}")
    result = read_result(folder)
    if is_finished(result, uid=record.uid):
        from tl_experiments.tracking.dead_runs import close_finished  # noqa: PLC0415 - MLflow is slow to import

        close_finished(folder, record)
        known = {key: value for key, value in result.items() if isinstance(value, float)}
        best, test = (known.get(key, float("nan")) for key in ("val/acc_best", "test/acc"))
        return f"{folder}: the run has finished: best val/acc {best:.4f}, test/acc {test:.4f}"
    allowed = typed.pop("allow_targets", None)
    config = read_record(folder / CONFIG, allow_targets=list(allowed.value()) if allowed else ())  # type: ignore[arg-type]
    if "tracking.uri" not in typed and (kept := config["tracking"].get("uri")):
        require_own_server(kept, source=folder / CONFIG, expected="tracking.uri={} beside resume")
    member = Member(
        config=with_changes(
            config, typed, choices=record.choices, may_change=(*MAY_CHANGE, "tracking.uri"), folder=folder
        ),
        choices=dict(record.choices),
        folder=folder,
        name=record.name,
        uid=record.uid,
    )
    return Job(members=(member,))


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+")
