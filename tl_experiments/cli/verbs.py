"""`tlx VERB`: what can be done beside training, one file a verb."""

import argparse
import sys
from collections.abc import Sequence

from tl_experiments.cli import (
    cache,
    compare,
    completion,
    evaluate,
    explain,
    export,
    extract,
    lr_find,
    pack,
    predict,
    register,
    report,
    reproduce,
    runs,
    scan,
    serve,
    show,
    sync,
    ui,
)
from tl_experiments.cli.grouped_help import GroupedParser, RoomyParser
from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed, UserError
from tl_experiments.runtime.signals import Terminated, tell_stopped

# What people want → the files of its verbs; both in the order of --help.
VERBS = {
    "before a run": (
        scan,
        pack,
        lr_find,
        extract,
    ),
    "look at runs": (
        runs,
        show,
        compare,
        report,
        ui,
    ),
    "use a run": (
        predict,
        evaluate,
        explain,
        export,
        serve,
        register,
    ),
    "keep runs": (
        reproduce,
        sync,
    ),
    "this program": (
        cache,
        completion,
    ),
}


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
    parser = GroupedParser(
        prog="tlx",
        description="What can be done beside training, which is `python run.py`. Each verb has a --help of its own.",
    )
    parser.set_defaults(parser=parser)  # which the script of a shell is made from
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=RoomyParser)
    for title, group in VERBS.items():
        with parser.group(title, verbs):
            for verb in group:
                verb.add(verbs)
    return parser
