"""`tlx explain`: why a model says what it says of images, as pictures."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_allow_targets, add_run, add_tracking_uri
from tl_experiments.runtime.signals import terminable

METHODS = "auto: Grad-CAM where the network allows it; gradients: single pixels; default: auto"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("explain", help="show what in an image speaks for its class, as pictures")
    add_run(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or 'patterns*.jpg'")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a new one; default: in outputs/explanations")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="explain this class, not the likeliest")
    parser.add_argument("--method", default="auto", metavar="METHOD", help=METHODS)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="images at most; default: 20")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N; default: auto")
    add_allow_targets(parser)
    add_tracking_uri(parser)
    parser.set_defaults(verb=_explain)


def _explain(options: argparse.Namespace) -> int:
    """Return 1 where an image could not be used."""
    from tl_experiments.build import build_classifier
    from tl_experiments.explain.explain_images import Wanted, explain_images
    from tl_experiments.tracking.console import Console
    from tl_experiments.tracking.named_run import model_folder
    from tl_experiments.tracking.new_folder import new_folder

    wanted = Wanted(
        folder=new_folder(options.output, parent="outputs/explanations"),
        class_name=options.class_name,
        method=options.method,
        limit=options.limit,
    )
    folder = model_folder(options.run, tracking_uri=options.tracking_uri)
    model = build_classifier(folder, device=options.device, allow_targets=options.allow_targets)
    with terminable(), Console() as console:
        num_bad = explain_images(model, options.images, wanted, console=console)
    return 1 if num_bad else 0
