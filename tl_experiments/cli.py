"""`tlx VERB`: what can be done beside training: with rates, images, sweeps, runs and caches."""

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed, SettingError, UserError
from tl_experiments.runtime.signals import Terminated, tell_stopped, terminable
from tl_experiments.sweep.folder import find_sweep
from tl_experiments.tracking.named_run import is_run_id

SWEEPS = Path("outputs/sweeps")
LR_FOLDER = Path("outputs/lr")
FILE_WIDTH = 160  # columns of a table that no terminal limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code.

    0 all is well · 1 something is damaged, away, or came out otherwise · 2 the input is wrong · 130 Ctrl-C ·
    143 SIGTERM.
    """
    parser = argparse.ArgumentParser(
        prog="tlx", description="Verbs beside training: learning rate, images, reports, records, caches."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    report = verbs.add_parser("report", help="compare the runs of a sweep again: table and report.html")
    report.add_argument(
        "sweep", metavar="PATH|latest|RUN_ID", help="folder of the sweep, the latest one, or the MLflow id of its run"
    )
    report.add_argument(
        "--tracking-uri", metavar="URI", help="where RUN_ID is; default: $MLFLOW_TRACKING_URI, else outputs/mlflow.db"
    )
    report.set_defaults(verb=_report)
    _add_scan(verbs.add_parser("scan", help="name every bad, repeated or mislabelled image of a folder"))
    sync = verbs.add_parser("sync", help="deliver to the tracking store what it could not be told while runs went on")
    sync.add_argument("path", type=Path, metavar="PATH", help="folder of a run or a sweep, or a folder of such folders")
    sync.add_argument("--tracking-uri", metavar="URI", help="the store; default: where each run was to be tracked")
    sync.set_defaults(verb=_sync)
    _add_reproduce(verbs.add_parser("reproduce", help="do a finished run again from its record, and compare"))
    _add_lr_find(verbs.add_parser("lr-find", help="find a learning rate by a range test; no run is made"))
    _add_cache(verbs.add_parser("cache", help="what is kept of earlier runs: list it, verify it, remove it"))
    options = parser.parse_args(arguments)
    try:
        return options.verb(options) or 0
    except (ConfigError, UserError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    except (KeyboardInterrupt, Terminated) as error:
        return tell_stopped(error)


def _report(options: argparse.Namespace) -> None:
    folder = None if is_run_id(options.sweep) else find_sweep(options.sweep, sweeps=SWEEPS)
    from tl_experiments.sweep.report_again import folder_of, report_again  # noqa: PLC0415 - `--help` and errors are quick

    report_again(folder or folder_of(options.sweep, options.tracking_uri), tracking_uri=options.tracking_uri)


def _add_scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", help="holds train/CLASS/*.jpg, or CLASS/*.jpg; as dataset.root")
    parser.add_argument("--follow-links", action="store_true", help="out of ROOT too; as dataset.follow_links=true")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode; default: one for each core")
    parser.set_defaults(verb=_scan)


def _scan(options: argparse.Namespace) -> int:
    from tl_experiments.tracking.console import Console  # noqa: PLC0415 - as above
    from tl_experiments.verify.scan import scan  # noqa: PLC0415

    with Console() as console:
        return scan(options.root, follow_links=options.follow_links, workers=options.workers, console=console)


def _sync(options: argparse.Namespace) -> int:
    from tl_experiments.tracking.sync import sync  # noqa: PLC0415 - as above

    return sync(options.path, tracking_uri=options.tracking_uri)


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="PATH|latest|RUN_ID", help="folder of the run, the latest one of outputs/runs, or its MLflow id"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what may change of its configuration: dataset.root, dataset.download, runtime.* and checkpoint.*",
    )
    parser.add_argument(
        "--allow-targets",
        nargs="+",
        action="extend",
        default=[],
        metavar="PREFIX",
        help="your own code that it may use",
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="where RUN_ID is; default: $MLFLOW_TRACKING_URI, else outputs/mlflow.db"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new one; default: in outputs/reproductions")
    parser.set_defaults(verb=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    """Return 0 for the same bits, and for what rounding may do; 1 for anything else."""
    from tl_experiments.verify.reproduce import reproduce  # noqa: PLC0415 - as above
    from tl_experiments.verify.verdict import Word  # noqa: PLC0415

    with terminable():
        verdict = reproduce(
            options.run,
            changes=options.set,
            allow_targets=options.allow_targets,
            tracking_uri=options.tracking_uri,
            keep=options.keep,
        )
    return 1 if verdict.word is Word.DIFFERENT else 0


def _add_lr_find(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of run.py, such as strategy=finetune")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of the curve; default: a new one in outputs/lr")
    parser.set_defaults(verb=_lr_find)


def _lr_find(options: argparse.Namespace) -> None:
    from hydra.errors import HydraException  # noqa: PLC0415 - as above
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    from tl_experiments.config.compose import compose_member  # noqa: PLC0415
    from tl_experiments.config.explain import explain  # noqa: PLC0415

    folder = (options.output or LR_FOLDER / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")).absolute()
    try:
        member = compose_member(["tracking=none", *options.overrides, "lr=auto"], folder=folder)
    except (HydraException, OmegaConfBaseException, ValueError, OverflowError) as error:
        raise ConfigError(explain(error)) from error
    from tl_experiments.experiment import find_lr  # noqa: PLC0415 - a wrong value is told before that

    folder.mkdir(parents=True, exist_ok=True)
    with terminable():
        found = find_lr(member)
    print(f"lr={found.suggestion:.3g}")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="list|verify|prune")
    actions.add_parser("list", help="show what is kept and how large it is").set_defaults(verb=_cache_list)
    actions.add_parser("verify", help="check every row; exit code 1 if any is damaged").set_defaults(verb=_cache_verify)
    prune = actions.add_parser("prune", help="remove what was used least recently, and what dead writers left")
    limit = prune.add_mutually_exclusive_group()
    limit.add_argument(
        "--limit-gb", metavar="X", help="remove until all takes at most X GB; default: $TL_CACHE_LIMIT_GB, else 20"
    )
    limit.add_argument("--all", action="store_true", help="remove everything that no other process is filling")
    prune.set_defaults(verb=_cache_prune)


def _cache_list(_options: argparse.Namespace) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.filesize import decimal  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from tl_experiments.runtime.cache_entries import entries  # noqa: PLC0415
    from tl_experiments.runtime.cache_folder import cache_folder, cache_limit  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    folder, limit = cache_folder(), int(cache_limit())
    found = entries(folder)
    if found:
        numbers = (Column(title, justify="right", no_wrap=True) for title in ("rows", "size"))
        table = Table("kind", Column("key", no_wrap=True), *numbers, Column("last used", no_wrap=True), "of")
        for entry in reversed(found):
            used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
            cells = (entry.kind, entry.key[:12], str(entry.rows), decimal(entry.bytes), used, _told(entry.fields))
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    print(f"{decimal(sum(entry.bytes for entry in found))} of {decimal(limit)} in {folder}")


def _told(fields: dict[str, Any]) -> str:
    """Say in a few words what an entry holds; all that it was made from is in its key.json."""
    size = _at(fields, "image", "size") or _at(fields, "canvas", "size")
    view = _at(fields, "view", "number")
    words = (
        _at(fields, "backbone", "name"),
        None if size is None else f"{size} px",
        _at(fields, "compute", "precision"),
        _at(fields, "check"),
        None if view is None else f"view {view + 1}",
    )
    return ", ".join(str(word) for word in words if word is not None) or "?"


def _at(fields: Any, *names: str) -> Any:
    """Return what lies under some names, or None."""
    for name in names:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def _cache_verify(_options: argparse.Namespace) -> int:
    from tl_experiments.runtime.cache_entries import gone, verify  # noqa: PLC0415 - as above
    from tl_experiments.runtime.cache_folder import FOLDER, cache_folder  # noqa: PLC0415

    folder, damaged = cache_folder(), 0
    if gone(folder):
        raise SettingError(f"there is no cache at {folder}: nothing was kept yet, or {FOLDER} names another folder")
    for damage in verify(folder):
        damaged += 1
        print(f"damaged: {damage.path}: {damage.fault}")
    if damaged:
        print("A run replaces what is damaged and skips what it cannot read; or remove all: tlx cache prune --all")
        return 1
    print(f"{folder}: every row is as it was written")
    return 0


def _cache_prune(options: argparse.Namespace) -> None:
    from rich.filesize import decimal  # noqa: PLC0415 - as above

    from tl_experiments.runtime.cache_folder import cache_folder, cache_limit, parse_gigabytes  # noqa: PLC0415
    from tl_experiments.runtime.cache_pruning import prune  # noqa: PLC0415

    try:
        limit = parse_gigabytes(options.limit_gb) if options.limit_gb is not None else cache_limit()
    except ValueError as error:
        raise SettingError(f"--limit-gb {options.limit_gb}: {error}") from None
    pruned = prune(cache_folder(), limit=-math.inf if options.all else limit)
    for entry in pruned.removed:
        print(f"removed: {entry.kind} {entry.key[:12]}, {entry.rows} rows, {decimal(entry.bytes)}")
    for entry in pruned.kept:
        print(f"kept: {entry.kind} {entry.key[:12]}: another process is filling it, or it cannot be removed")
    if pruned.leftover_bytes:
        print(f"removed: {decimal(pruned.leftover_bytes)} that unfinished writes left")
    print(f"freed {decimal(pruned.freed)} in {cache_folder()}")
