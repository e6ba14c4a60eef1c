"""`tlx extract`: features, before the runs that need them."""

import argparse
from pathlib import Path

from tl_experiments.cli.parsing import Verbs
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.signals import terminable


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("extract", help="fill the cache of features, by one worker or many; no run is made")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of run.py, such as backbone=resnet50")
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--part",
        metavar="I/N",
        help="the I-th of N shares of the images; default: a SLURM array's task, else all",
    )
    workers.add_argument(
        "--ray", type=int, metavar="N", help="all, in N parts on the Ray cluster of $RAY_ADDRESS or on this machine"
    )
    parser.set_defaults(verb=_extract)


def _extract(options: argparse.Namespace) -> None:
    import os

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tl_experiments.config.compose import compose_member
    from tl_experiments.config.explain import explain
    from tl_experiments.use.asked_share import asked_share

    if options.ray is not None and options.ray < 1:
        raise SettingError(f"--ray {options.ray}: expected a number of parts, 1 or more")
    share = asked_share(options.part, os.environ)
    overrides, folder = ["tracking=none", *options.overrides], Path.cwd()
    try:
        member = compose_member(overrides, folder=folder)
    except (HydraException, OmegaConfBaseException, ValueError, OverflowError) as error:
        raise ConfigError(explain(error)) from error
    with terminable():
        if options.ray is None:
            from tl_experiments.use.extract import extract

            print(extract(member, share=share))
            return
        from tl_experiments.tracking.console import Console
        from tl_experiments.use.extract_on_ray import extract_on_ray

        with Console() as console:
            parts = extract_on_ray(overrides, member, num_parts=options.ray, console=console)
        for part in parts:
            print(part)
