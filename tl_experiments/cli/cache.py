"""`tlx cache`: what is kept of earlier runs."""

import argparse
import math
from datetime import datetime
from typing import Any

from tl_experiments.cli.parsing import Verbs
from tl_experiments.cli.showing import wide_console
from tl_experiments.runtime.errors import SettingError


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("cache", help="what is kept of earlier runs: list it, verify it, remove it")
    actions = parser.add_subparsers(title="actions", required=True, metavar="list|verify|prune")
    actions.add_parser("list", help="show what is kept and how large it is").set_defaults(verb=_list)
    actions.add_parser("verify", help="check every row; exit code 1 if any is damaged").set_defaults(verb=_verify)
    prune = actions.add_parser("prune", help="remove what was used least recently, and what dead writers left")
    limit = prune.add_mutually_exclusive_group()
    limit.add_argument(
        "--limit-gb", metavar="X", help="remove until all takes at most X GB; default: $TL_CACHE_LIMIT_GB, else 20"
    )
    limit.add_argument("--all", action="store_true", help="remove everything that no other process is filling")
    prune.set_defaults(verb=_prune)


def _list(_options: argparse.Namespace) -> None:
    from rich.filesize import decimal
    from rich.table import Column, Table
    from rich.text import Text

    from tl_experiments.runtime.cache_entries import entries
    from tl_experiments.runtime.cache_folder import cache_folder, cache_limit

    folder, limit = cache_folder(), int(cache_limit())
    found = entries(folder)
    if found:
        numbers = (Column(title, justify="right", no_wrap=True) for title in ("rows", "size"))
        table = Table("kind", Column("key", no_wrap=True), *numbers, Column("last used", no_wrap=True), "of")
        for entry in reversed(found):
            used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
            cells = (entry.kind, entry.key[:12], str(entry.rows), decimal(entry.bytes), used, _told(entry.fields))
            table.add_row(*(Text(cell) for cell in cells))
        wide_console().print(table)
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
        _at(fields, "shard"),
        None if _at(fields, "index") is None else f"{len(fields['index'])} shards",
        None if view is None else f"view {view + 1}",
    )
    return ", ".join(str(word) for word in words if word is not None) or "?"


def _at(fields: Any, *names: str) -> Any:
    """Return what lies under some names, or None."""
    for name in names:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def _verify(_options: argparse.Namespace) -> int:
    from tl_experiments.runtime.cache_entries import gone, verify
    from tl_experiments.runtime.cache_folder import FOLDER, cache_folder

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


def _prune(options: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from tl_experiments.runtime.cache_folder import cache_folder, cache_limit, parse_gigabytes
    from tl_experiments.runtime.cache_pruning import prune

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
