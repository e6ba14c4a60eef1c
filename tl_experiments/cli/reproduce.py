"""`tlx reproduce`: a finished run again, and what came out otherwise."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_allow_targets, add_run, add_tracking_uri
from tl_experiments.runtime.signals import terminable


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("reproduce", help="do a finished run again from its record, and compare")
    add_run(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what may change of its configuration: dataset.root, dataset.download, runtime.* and checkpoint.*",
    )
    add_allow_targets(parser)
    add_tracking_uri(parser)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new one; default: in outputs/reproductions")
    parser.set_defaults(verb=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    """Return 0 for the same bits, and for what rounding may do; 1 for anything else."""
    from tl_experiments.verify.reproduce import reproduce
    from tl_experiments.verify.verdict import Word

    with terminable():
        verdict = reproduce(
            options.run,
            changes=options.set,
            allow_targets=options.allow_targets,
            tracking_uri=options.tracking_uri,
            keep=options.keep,
        )
    return 1 if verdict.word is Word.DIFFERENT else 0
