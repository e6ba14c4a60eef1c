"""`tlx evaluate`: a finished model on other labelled images."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_model, add_run, add_skip_bad, model_options
from tl_experiments.runtime.signals import terminable


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("evaluate", help="test a model on labelled images: scores, confusion, calibration")
    add_run(parser)
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder of class folders, or CSV or Parquet with image_path and label"
    )
    parser.add_argument("--split", metavar="SPLIT", help="train, val or test, where SOURCE is split; default: test")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a new one; default: in outputs/evaluations")
    add_skip_bad(parser)
    add_model(parser)
    parser.set_defaults(verb=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    """Return 1 where an image could not be used, unless such images are to be skipped."""
    from tl_experiments.tracking.console import Console
    from tl_experiments.use.evaluate import evaluate

    with terminable(), Console() as console:
        num_bad = evaluate(
            model_options(options), options.source, split=options.split, output=options.output, console=console
        )
    return 1 if num_bad and not options.skip_bad else 0
