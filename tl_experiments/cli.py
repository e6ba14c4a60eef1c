"""`tlx VERB`: what can be done with sweeps and runs that are there already."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import UserError
from tl_experiments.sweep.folder import find_sweep

SWEEPS = Path("outputs/sweeps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 all is well, 2 the input is wrong."""
    parser = argparse.ArgumentParser(prog="tlx", description="Verbs for sweeps and runs that are there already.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    report = verbs.add_parser("report", help="compare the runs of a sweep again: table and report.html")
    report.add_argument(
        "sweep", metavar="PATH|latest|RUN_ID", help="folder of the sweep, the latest one, or the MLflow id of its run"
    )
    report.add_argument(
        "--tracking-uri", metavar="URI", help="where RUN_ID is; default: $MLFLOW_TRACKING_URI, else outputs/mlflow.db"
    )
    report.set_defaults(verb=_report)
    options = parser.parse_args(arguments)
    try:
        options.verb(options)
    except (ConfigError, UserError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


def is_run_id(named: str) -> bool:
    """Whether a name is an MLflow run's; a folder that is called so comes first."""
    return re.fullmatch("[0-9a-f]{32}", named) is not None and not Path(named).exists()


def _report(options: argparse.Namespace) -> None:
    folder = None if is_run_id(options.sweep) else find_sweep(options.sweep, sweeps=SWEEPS)
    from tl_experiments.sweep.report_again import folder_of, report_again  # noqa: PLC0415 - `--help` and errors are quick

    report_again(folder or folder_of(options.sweep, options.tracking_uri), tracking_uri=options.tracking_uri)
