"""`tlx report`: the runs of a sweep compared again."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_tracking_uri
from tl_experiments.sweep.folder import find_sweep
from tl_experiments.tracking.named_run import is_run_id

SWEEPS = Path("outputs/sweeps")


def add(verbs: Verbs) -> None:
    report = verbs.add_parser("report", help="compare the runs of a sweep again: table and report.html")
    report.add_argument(
        "sweep", metavar="PATH|latest|RUN_ID", help="folder of the sweep, the latest one, or the MLflow id of its run"
    )
    add_tracking_uri(report)
    report.set_defaults(verb=_report)


def _report(options: argparse.Namespace) -> None:
    folder = None if is_run_id(options.sweep) else find_sweep(options.sweep, sweeps=SWEEPS)
    from tl_experiments.sweep.report_again import folder_of, report_again

    report_again(folder or folder_of(options.sweep, options.tracking_uri), tracking_uri=options.tracking_uri)
