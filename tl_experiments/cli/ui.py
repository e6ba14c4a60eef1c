"""`tlx ui`: MLflow's pages on the runs, without an address to remember."""

import argparse
from contextlib import suppress

from tl_experiments.cli.parsing import Verbs, add_tracking_uri


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("ui", help="show the runs in MLflow's pages until Ctrl-C, on this machine alone")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="default: 5000")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine alone")
    add_tracking_uri(parser)
    parser.set_defaults(verb=_ui)


def _ui(options: argparse.Namespace) -> None:
    from tl_experiments.tracking.ui import show_ui

    with suppress(KeyboardInterrupt):  # which is how it ends
        show_ui(
            host=options.host,
            port=options.port,
            tracking_uri=options.tracking_uri,
            tell=lambda line: print(line, flush=True),
        )
