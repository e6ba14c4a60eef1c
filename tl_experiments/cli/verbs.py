"""`tlx VERB`: what can be done beside training, one file a verb."""

import argparse
import sys
from collections.abc import Sequence

from tl_experiments.cli import cache, evaluate, explain, lr_find, predict, report, reproduce, scan, serve, sync
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed, UserError
from tl_experiments.runtime.signals import Terminated, tell_stopped

VERBS = (predict, evaluate, explain, serve, report, scan, sync, reproduce, lr_find, cache)  # in the order of --help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code.

    0 all is well · 1 something is damaged, away, or came out otherwise · 2 the input is wrong · 130 Ctrl-C ·
    143 SIGTERM.
    """
    options = make_parser().parse_args(arguments)
    try:
        return options.verb(options) or 0
    except (ConfigError, UserError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    except (KeyboardInterrupt, Terminated) as error:
        return tell_stopped(error)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tlx", description="Verbs beside training: learning rate, images, reports, records, caches."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in VERBS:
        verb.add(verbs)
    return parser
