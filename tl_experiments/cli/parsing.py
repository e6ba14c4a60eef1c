"""What several verbs take."""

import argparse
from typing import TYPE_CHECKING, TypeAlias

from tl_experiments.tracking.named_run import NAMES

if TYPE_CHECKING:
    from tl_experiments.use.model_options import ModelOptions

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Take RUN, as `tracking.named_run.run_folder` does."""
    parser.add_argument("run", metavar="RUN", help=NAMES)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Take, beside RUN, where a model is and how it is used, as `use.model_options.ModelOptions` does."""
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at once; default: what suits the device")
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="PRECISION",
        help="fp32, bf16, or auto for what is fastest; default: fp32",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="how many decode at once; default: one for each core")
    add_allow_targets(parser)
    add_tracking_uri(parser)


def model_options(options: argparse.Namespace) -> "ModelOptions":
    """Return the model that was asked for by `add_run` and `add_model`."""
    from tl_experiments.use.model_options import ModelOptions

    return ModelOptions(
        run=options.run,
        tracking_uri=options.tracking_uri,
        allow_targets=options.allow_targets,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=options.workers,
    )


def add_skip_bad(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="exit code 0 although images could not be used")


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
