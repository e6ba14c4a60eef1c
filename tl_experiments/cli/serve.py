"""`tlx serve`: a trained model behind HTTP."""

import argparse
import math

from tl_experiments.cli.parsing import Verbs, add_model, add_run, model_options
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.signals import terminable

MISSING = "tlx serve needs what `pip install 'tl_experiments[serve]'` adds"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("serve", help="answer over HTTP: a page for people, JSON for programs")
    add_run(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which other machines cannot reach")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any that is free")
    limits = parser.add_argument_group("limits of a request")
    limits.add_argument("--max-mb", type=float, default=20.0, metavar="X", help="of its body; default: 20")
    limits.add_argument("--max-images", type=int, default=32, metavar="N", help="default: 32")
    limits.add_argument(
        "--max-pixels", type=int, default=50_000_000, metavar="N", help="of an image; default: 50000000"
    )
    limits.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to its answer; default: 30")
    work = parser.add_argument_group("the queue")
    work.add_argument("--max-waiting", type=int, default=256, metavar="N", help="images of all requests; default: 256")
    work.add_argument(
        "--max-wait-ms",
        type=float,
        default=5.0,
        metavar="X",
        help="that a batch waits for images that are being decoded; default: 5",
    )
    add_model(parser)
    parser.set_defaults(verb=_serve)


def _serve(options: argparse.Namespace) -> None:
    _require_extra()
    for name in ("max_mb", "max_images", "max_pixels", "timeout", "max_waiting"):
        if not 0 < (value := getattr(options, name)) < math.inf:
            raise SettingError(f"--{name.replace('_', '-')} {value}: expected more than 0")
    if options.max_waiting < options.max_images:
        raise SettingError(
            f"--max-waiting {options.max_waiting}: expected at least --max-images {options.max_images}, of one request"
        )
    if not 0 <= options.max_wait_ms < math.inf:
        raise SettingError(f"--max-wait-ms {options.max_wait_ms}: expected 0 or more")
    from tl_experiments.data.decoding import MOST_PIXELS
    from tl_experiments.serve.limits import Limits
    from tl_experiments.serve.service import bind, serve
    from tl_experiments.tracking.console import Console

    if options.max_pixels > MOST_PIXELS:
        raise SettingError(
            f"--max-pixels {options.max_pixels}: expected at most {MOST_PIXELS}, which is the most of any image"
        )
    asked = model_options(options)
    limits = Limits(
        body_bytes=round(options.max_mb * 1e6),
        images=options.max_images,
        pixels=options.max_pixels,
        seconds=options.timeout,
        waiting=options.max_waiting,
    )
    address = bind(options.host, options.port)  # before the model is loaded: who is told soon, loses nothing
    with terminable(), address.socket, Console() as console:
        folder = asked.folder()
        with asked.classifier(folder) as classifier:
            serve(
                classifier,
                folder,
                address=address,
                limits=limits,
                wait_seconds=options.max_wait_ms / 1e3,
                workers=asked.workers,
                console=console,
            )


def _require_extra() -> None:
    from importlib.util import find_spec

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(module) is None:
            raise SettingError(f"{MISSING} ({module} is missing)")
