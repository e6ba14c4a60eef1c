"""`tlx compare`: runs side by side."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_tracking_uri
from tl_experiments.cli.showing import wide_console
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.named_run import NAMES

MOST_SHOWN = 10


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("compare", help="compare runs: settings, figures, and answers to the same test images")
    parser.add_argument("runs", nargs="+", metavar="RUN", help=f"two or more, each against the first: {NAMES}")
    parser.add_argument(
        "--limit",
        type=int,
        default=MOST_SHOWN,
        metavar="N",
        help=f"images on which they disagree that are shown; default: {MOST_SHOWN}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="new; for compare.html, with these images, and disagreements.csv",
    )
    add_tracking_uri(parser)
    parser.set_defaults(verb=_compare)


def _compare(options: argparse.Namespace) -> None:
    from tl_experiments.sweep.side_by_side.gather import compare_runs
    from tl_experiments.sweep.side_by_side.table import print_side_by_side
    from tl_experiments.tracking.named_run import run_folder
    from tl_experiments.tracking.new_folder import new_folder

    if options.limit < 0:
        raise SettingError(f"--limit {options.limit}: expected 0 or more")
    output = options.output and new_folder(options.output, parent="")
    folders = [run_folder(named, tracking_uri=options.tracking_uri) for named in options.runs]
    compared, console = compare_runs(folders), wide_console()
    print_side_by_side(compared, console, most_shown=options.limit)
    if output:
        from tl_experiments.sweep.report.side_by_side import write_side_by_side

        for path in write_side_by_side(output, compared):
            console.print(f"written {path}", soft_wrap=True, markup=False, highlight=False, emoji=False)
