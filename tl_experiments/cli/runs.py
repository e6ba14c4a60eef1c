"""`tlx runs`: the runs of a folder, told by their own files."""

import argparse
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from tl_experiments.cli.parsing import Verbs
from tl_experiments.cli.showing import figure, finite, local_time, wide_console
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.record import read_values
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.known_runs import BEST, KnownRun, runs_in
from tl_experiments.tracking.named_run import OUTPUTS, short_path
from tl_experiments.tracking.run_record import CONFIG

STATES = ("FINISHED", "PRUNED", "FAILED", "KILLED", "UNFINISHED")
MOST_SHOWN = 20
DIGITS = 8  # of an MLflow id, which are enough to name a run
NAME_LENGTH, PATH_LENGTH = 48, 40  # characters
FIGURES = ("val/acc", "test/acc", "seconds")
WIDE = 140  # columns of a terminal that has room for the whole table
TIMM = "timm"  # whose models are told by `backbone.name`
OF_A_PLACE = ("image_folder", "csv", "parquet", "hf", "webdataset")  # datasets that are told by where they lie
OF_THE_WIDE = ("dataset", "backbone", "strategy", "seconds", "MLflow id")


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("runs", help="list runs, newest first, with scores and folders")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=OUTPUTS, metavar="FOLDER", help="of runs, such as a sweep's; outputs"
    )
    parser.add_argument("--best", action="store_true", help="highest val/acc first")
    parser.add_argument("--status", type=str.upper, choices=STATES, help="those alone")
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"show the first N; default: {MOST_SHOWN}, all of them with --json"
    )
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    parser.set_defaults(verb=_runs)


def _runs(options: argparse.Namespace) -> None:
    if options.limit is not None and options.limit < 1:
        raise SettingError(f"--limit {options.limit}: expected 1 or more")
    if not options.folder.is_dir():
        raise SettingError(f"{options.folder.absolute()}: no such folder; expected one of runs, such as outputs")
    runs = [run for run in reversed(runs_in(options.folder)) if options.status in (None, run.status)]
    if options.best:
        runs.sort(key=_worth, reverse=True)
    if options.json:
        print(json.dumps([_fields(run) for run in runs[: options.limit]], indent=1))
        return
    if not runs:
        such = f"{options.status} run" if options.status else "run"
        print(f"no {such} in {options.folder.absolute()}")
        return
    limit = options.limit or MOST_SHOWN
    _print(runs[:limit])
    if more := len(runs) - limit:
        print(f"and {more:,} more: --limit {len(runs)} shows all") if more > 0 else None


def _worth(run: KnownRun) -> tuple[float, float]:
    """Rank finished runs by val/acc, then others by the val/acc that they have come to; what has none comes last."""
    return _number(run.val_acc), _number(run.own_result.get(BEST))


def _number(value: Any) -> float:
    return value if isinstance(value, float) and math.isfinite(value) else -math.inf


def _fields(run: KnownRun) -> dict[str, Any]:
    """Return what is known of a run without its configuration, as JSON holds it."""
    scores = {key: value for key, value in run.own_result.items() if key.startswith(("val/", "test/", "perf/"))}
    return {
        "folder": str(run.folder),
        **asdict(run.record),
        "status": run.status,
        "run_id": run.run_id,
        **finite(scores),
        "seconds": run.own_result.get("seconds"),
    }


def _print(runs: Sequence[KnownRun]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    console = wide_console()
    is_wide, rows = console.width >= WIDE, [_cells(run) for run in runs]
    titles = [title for title in rows[0] if is_wide or title not in OF_THE_WIDE]
    whole = {"began", "status", "MLflow id", *FIGURES}
    if is_wide and max(len(row["folder"]) for row in rows) <= PATH_LENGTH:
        whole.add("folder")  # so that it can be copied
    columns = (
        Column(title, justify="right" if title in FIGURES else "left", no_wrap=title in whole, overflow="fold")
        for title in titles
    )
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(row[title]) for title in titles))
    console.print(table)


def _cells(run: KnownRun) -> dict[str, str]:
    """Return the cells of a row by the titles of their columns."""
    result, name = run.own_result, run.record.name
    dataset, backbone = _sources(run)
    return {
        "began": local_time(run.record.began),
        "name": name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…",
        "dataset": dataset,
        "backbone": backbone,
        "strategy": run.record.choices["strategy"],
        "status": run.status,
        "val/acc": figure(result.get(BEST)),
        "test/acc": figure(result.get("test/acc")),
        "seconds": figure(result.get("perf/seconds", result.get("seconds")), ".1f"),
        "MLflow id": (run.run_id or "–")[:DIGITS],
        "folder": short_path(run.folder),
    }


def _sources(run: KnownRun) -> tuple[str, str]:
    """Return what a run learned from, and its backbone; where an option says little, its configuration is read."""
    dataset, backbone = run.record.choices["dataset"], run.record.choices["backbone"]
    if dataset in OF_A_PLACE or backbone == TIMM:
        with suppress(ConfigError, KeyError, TypeError, AttributeError):
            config = read_values(run.folder / CONFIG)
            if dataset in OF_A_PLACE:
                dataset = PurePath(config["dataset"].get("name") or config["dataset"]["root"]).name
            if backbone == TIMM:
                backbone = str(config["backbone"]["name"])
    return dataset, backbone
