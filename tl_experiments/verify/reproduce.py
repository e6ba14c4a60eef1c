"""`tlx reproduce`: a finished run is done again from its own record, and what comes out is compared.

Nothing that earlier runs have kept is used: images and features are computed anew, unless `runtime.cache=true` is asked
for. Nothing is tracked, since a reproduction is no new result. Verdicts and tolerances are those of `verdict.py`.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from tl_experiments.config.changes import MAY_CHANGE, parse_overrides, with_changes
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member, make_uid
from tl_experiments.experiment import run_experiments
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.typed_path import is_pattern, is_url
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.named_run import run_folder
from tl_experiments.tracking.tracker import NullTracker
from tl_experiments.verify.recorded import Recorded, read_recorded
from tl_experiments.verify.verdict import ACC_TOLERANCE, LOSS_TOLERANCE, Verdict, Word, compare, short

REPRODUCTIONS = Path("outputs/reproductions")
FILE = "reproduction.json"


def reproduce(
    named: str,
    *,
    changes: Sequence[str] = (),
    allow_targets: Sequence[str] = (),
    tracking_uri: str | None = None,
    keep: Path | None = None,
) -> Verdict:
    """Do a finished run again in a new folder, compare, print and write the verdict; a job of a sweep is done alone.

    Args:
        named: the run's folder, its id in the tracking store, or `latest`.
        changes: overrides of what may change of its configuration, as `dataset.root=PATH` where images have moved.
        allow_targets: prefixes of the caller's own code that the record may name.
        tracking_uri: where ids are looked for; None is $MLFLOW_TRACKING_URI, else the default store.
        keep: the new folder; None is one in `outputs/reproductions`.

    Raises:
        ConfigError: the record, a change or the new folder cannot be used.
        UserError: there is no such run, it has not finished, or its images, weights or device are not there.
        RunFailed: the run, which had finished, could not go on this time.
    """
    then = read_recorded(run_folder(named, tracking_uri=tracking_uri), allow_targets=allow_targets)
    folder = _new_folder(then, keep)
    member = Member(
        config=_config(then, changes, folder=folder),
        choices={**then.record.choices, "tracking": "none"},
        folder=folder,
        name=then.record.name,
        uid=make_uid(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run_experiments([member])
    except RunFailed as error:
        raise RunFailed(f"{Word.DIFFERENT}: the run finished then, and failed now: {error}") from error
    now = read_recorded(folder, allow_targets=allow_targets)
    verdict = compare(
        then.ending, now.ending, circumstances_then=then.circumstances, circumstances_now=now.circumstances
    )
    publish_text(folder / FILE, json.dumps(_document(verdict, then, now), indent=2) + "\n")
    _show(verdict, folder)
    return verdict


def _new_folder(then: Recorded, keep: Path | None) -> Path:
    if keep is None:
        job = then.folder.name if then.record.sweep_id is None else f"{then.folder.parent.name}_{then.folder.name}"
        keep = REPRODUCTIONS / f"{job}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
    folder = keep.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--keep {folder}: is there already; expected a new folder, or an empty one")
    return folder


def _config(then: Recorded, changes: Sequence[str], *, folder: Path) -> dict[str, Any]:
    """Return the run's configuration with what was typed, untracked."""
    config = {
        **then.config,
        "tracking": {"_target_": f"{NullTracker.__module__}.{NullTracker.__qualname__}"},
        "runtime": {**then.config["runtime"], "cache": False},
    }
    typed = parse_overrides(changes)
    _require_images(config["dataset"], moved="dataset.root" in typed)
    changed, _ = with_changes(config, typed, choices=then.record.choices, may_change=MAY_CHANGE, folder=folder)
    return changed


def _require_images(dataset: Mapping[str, Any], *, moved: bool) -> None:
    root = dataset.get("root")
    if not root or moved or "download" in dataset or is_url(root) or is_pattern(root):
        return
    if not Path(root).expanduser().exists():
        raise SettingError(
            f"dataset.root={root}: the run's images are not there any more; expected their place by "
            f"--set dataset.root=PATH (relative paths start at {Path.cwd()})"
        )


def _document(verdict: Verdict, then: Recorded, now: Recorded) -> dict[str, Any]:
    return {
        "verdict": verdict.word,
        "line": verdict.line,
        **{
            key: {"folder": str(run.folder), "uid": run.record.uid, "circumstances": dict(run.circumstances)}
            for key, run in (("then", then), ("now", now))
        },
        "results": [asdict(difference) for difference in verdict.results],
        "circumstances": [asdict(difference) for difference in verdict.circumstances],
        "beyond": verdict.beyond,
        "tolerances": {"accuracy": ACC_TOLERANCE, "loss of the first epoch, relative": LOSS_TOLERANCE},
    }


def _show(verdict: Verdict, folder: Path) -> None:
    console = Console()
    differences = (*verdict.results, *verdict.circumstances)
    if differences:
        table = Table("differs", Column("then", overflow="fold"), Column("now", overflow="fold"))
        for index, difference in enumerate(differences):
            cells = (difference.what, _cell(difference.then), _cell(difference.now))
            table.add_row(*(Text(cell) for cell in cells), end_section=index + 1 == len(verdict.results))
        console.rich.print(table)
    console.notice(f"same    {', '.join(verdict.same)}")
    console.notice(f"files   {folder}")
    console.notice(verdict.line)


def _cell(value: str) -> str:
    """Return a value as the table shows it, digests and commits shortened."""
    return re.sub("[0-9a-f]{40,64}", lambda found: short(found[0]), value)
