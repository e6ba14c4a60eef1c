"""What several verbs take."""

import argparse
from typing import TypeAlias

from tl_experiments.tracking.named_run import NAMES

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Take RUN, as `tracking.named_run.run_folder` does."""
    parser.add_argument("run", metavar="RUN", help=NAMES)


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="where MLflow ids are; default: $MLFLOW_TRACKING_URI, else outputs/mlflow.db",
    )


def add_allow_targets(parser: argparse.ArgumentParser) -> None:
    """Take prefixes of code of one's own that a record may name."""
    parser.add_argument(
        "--allow-targets",
        nargs="+",
        action="extend",
        default=[],
        metavar="PREFIX",
        help="your own code that it may use",
    )
