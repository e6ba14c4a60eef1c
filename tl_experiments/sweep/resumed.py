"""`python run.py resume=...`: the run that was stopped, as it was begun, whatever the configuration files say today."""

from collections.abc import Sequence
from pathlib import Path

from tl_experiments.config.changes import parse_overrides, with_changes
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.config.record import read_record
from tl_experiments.sweep.job import Job
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import require_own_server
from tl_experiments.tracking.journal import Journal
from tl_experiments.tracking.named_run import run_folder
from tl_experiments.tracking.result import finished_line, is_finished, read_result
from tl_experiments.tracking.run_record import CONFIG, RunRecord

KEY = "resume"
# What may be typed beside it: where and how the run goes on. Another device or number of threads changes bits, and so
# does memory in which activations fit no longer; that is told. Everything else would make it another run.
MAY_CHANGE = (
    *("runtime.device", "runtime.threads", "runtime.workers", "runtime.image_memory_gb", "runtime.cache"),
    *("runtime.log_every_steps", "runtime.on_oom", "runtime.rank_timeout", "checkpoint."),
    *("dataset.root", "dataset.download", "tracking.uri"),
)


def is_resume(arguments: Sequence[str]) -> bool:
    """Whether a command line goes on with a run: with flags such as --help or -m it is Hydra's."""
    if any(argument.startswith("-") for argument in arguments):
        return False
    return any(_key(argument) == KEY and argument.partition("=")[2] not in ("", "null") for argument in arguments)


def resumed_job(arguments: Sequence[str]) -> Job | str:
    """Return what is left of a run, or a line that says why nothing is.

    Args:
        arguments: `resume=PATH|RUN_ID|latest`, and overrides that must agree with the run or may change.

    Raises:
        ConfigError: it belongs to a sweep, or an override is not what the run was begun with.
        SettingError: there is no such run, or its record cannot be read.
    """
    typed = parse_overrides(arguments)
    folder = run_folder(typed.pop(KEY).get_value_element_as_str().strip("'\""))
    record = RunRecord.load(folder)
    if record.sweep_id is not None:
        raise ConfigError(f"{folder}: a job of a sweep; it goes on by: python run.py -m sweep.resume={folder.parent}")
    if is_finished(read_result(folder), uid=record.uid):
        from tl_experiments.tracking.dead_runs import close_finished  # noqa: PLC0415 - MLflow is slow to import

        close_finished(folder, record)
        return finished_line(folder)
    allowed = typed.pop("allow_targets", None)
    config = read_record(folder / CONFIG, allow_targets=list(allowed.value()) if allowed else ())  # type: ignore[arg-type]
    if "tracking.uri" not in typed and (kept := config["tracking"].get("uri") or _tracked_in(folder)):
        require_own_server(kept, source=folder / CONFIG, expected="tracking.uri={} beside resume")
        config["tracking"]["uri"] = kept
    config, changed = with_changes(config, typed, choices=record.choices, may_change=MAY_CHANGE, folder=folder)
    member = Member(
        config=config,
        changed=changed,
        choices=dict(record.choices),
        folder=folder,
        name=record.name,
        uid=record.uid,
    )
    return Job(members=(member,))


def _tracked_in(folder: Path) -> str | None:
    """Return the store that a run was told to: its default is another one in another folder."""
    if not (folder / journal.FILE).is_file():
        return None
    return Journal.read(folder).header.store


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+")
