"""`tlx lr-find`: the learning rate that a range test suggests."""

import argparse
from datetime import datetime
from pathlib import Path

from tl_experiments.cli.parsing import Verbs
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.signals import terminable

LR_FOLDER = Path("outputs/lr")


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("lr-find", help="find a learning rate by a range test; no run is made")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as of run.py, such as strategy=finetune")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of the curve; default: a new one in outputs/lr")
    parser.set_defaults(verb=_lr_find)


def _lr_find(options: argparse.Namespace) -> None:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tl_experiments.config.compose import compose_member
    from tl_experiments.config.explain import explain

    folder = (options.output or LR_FOLDER / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")).absolute()
    try:
        member = compose_member(["tracking=none", *options.overrides, "lr=auto"], folder=folder)
    except (HydraException, OmegaConfBaseException, ValueError, OverflowError) as error:
        raise ConfigError(explain(error)) from error
    from tl_experiments.experiment import find_lr

    folder.mkdir(parents=True, exist_ok=True)
    with terminable():
        found = find_lr(member)
    print(f"lr={found.suggestion:.3g}")
