"""`tlx predict`: what a model says of images, as a table."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_model, add_run, add_skip_bad, model_options
from tl_experiments.runtime.signals import terminable

SOURCE = "a file, folder, 'pattern*.jpg', CSV or Parquet with image_path, or - for paths on standard input"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("predict", help="classify images: a table with a row for each")
    add_run(parser)
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="PATH.csv, PATH.parquet, PATH.jsonl")
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="name the K likeliest classes; default: 1")
    parser.add_argument("--all-probs", action="store_true", help="a column with the probability of each class too")
    parser.add_argument("--overwrite", action="store_true", help="an output that is there makes way")
    add_skip_bad(parser)
    add_model(parser)
    parser.set_defaults(verb=_predict)


def _predict(options: argparse.Namespace) -> int:
    """Return 1 where an image could not be used, unless such images are to be skipped."""
    from tl_experiments.tracking.console import Console
    from tl_experiments.use.predict import Wanted, predict

    wanted = Wanted(
        output=options.output, top_k=options.top_k, all_probs=options.all_probs, overwrite=options.overwrite
    )
    with terminable(), Console() as console:
        num_bad = predict(model_options(options), options.source, wanted, console=console)
    return 1 if num_bad and not options.skip_bad else 0
