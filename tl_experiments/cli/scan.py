"""`tlx scan`: what is wrong with a folder of images, or a table of them."""

import argparse

from tl_experiments.cli.parsing import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("scan", help="name every bad, repeated or mislabelled image of a folder or a table")
    parser.add_argument("root", metavar="ROOT", help="train/CLASS/*.jpg, or CLASS/*.jpg, or a table; as dataset.root")
    parser.add_argument("--follow-links", action="store_true", help="out of ROOT too; as dataset.follow_links=true")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode; default: one for each core")
    parser.set_defaults(verb=_scan)


def _scan(options: argparse.Namespace) -> int:
    from tl_experiments.tracking.console import Console
    from tl_experiments.verify.scan import scan

    with Console() as console:
        return scan(options.root, follow_links=options.follow_links, workers=options.workers, console=console)
