"""`tlx sync`: what a tracking store could not be told before."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs


def add(verbs: Verbs) -> None:
    sync = verbs.add_parser("sync", help="deliver to the tracking store what it could not be told while runs went on")
    sync.add_argument("path", type=Path, metavar="PATH", help="folder of a run or a sweep, or a folder of such folders")
    sync.add_argument("--tracking-uri", metavar="URI", help="the store; default: where each run was to be tracked")
    sync.set_defaults(verb=_sync)


def _sync(options: argparse.Namespace) -> int:
    from tl_experiments.tracking.sync import sync

    return sync(options.path, tracking_uri=options.tracking_uri)
