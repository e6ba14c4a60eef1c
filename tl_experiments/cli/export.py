"""`tlx export`: a trained model as ONNX, a PyTorch program, a folder of its own or one of timm's."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs, add_allow_targets, add_run, add_tracking_uri
from tl_experiments.runtime.signals import terminable

FORMATS = ("onnx", "pt2", "safetensors", "timm")


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("export", help="write a trained model for other programs, checked on real images")
    add_run(parser)
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="onnx and pt2 (torch.export) are graphs in one file, safetensors and timm folders",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="ends in .onnx or .pt2 where it is a file"
    )
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="uint8 RGB images (B, H, W, 3) in, calibrated probabilities out; else normalised (B, 3, S, S) to logits",
    )
    parser.add_argument(
        "--images",
        metavar="SOURCE",
        help="to check it on, as of predict, the first 64 of them; default: the few that go with the model",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    add_allow_targets(parser)
    add_tracking_uri(parser)
    parser.set_defaults(verb=_export)


def _export(options: argparse.Namespace) -> None:
    from tl_experiments.runtime.typed_path import typed_path
    from tl_experiments.tracking.console import Console
    from tl_experiments.use.export import Wanted, export

    wanted = Wanted(
        format=options.format,
        output=typed_path(options.output),
        preprocess=options.preprocess,
        images=options.images,
        overwrite=options.overwrite,
    )
    with terminable(), Console() as console:
        export(
            options.run,
            wanted,
            tracking_uri=options.tracking_uri,
            allow_targets=options.allow_targets,
            console=console,
        )
