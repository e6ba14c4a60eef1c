"""`tlx completion`: what makes a shell complete the verbs, their options and paths."""

import argparse
from collections.abc import Iterator

from tl_experiments.cli.parsing import Verbs

SHELLS = ("bash", "zsh", "tcsh")
# What the help calls values that are folders, that are or may be files, and that are runs.
FOLDERS = ("FOLDER", "ROOT")
FILES = ("PATH", "SOURCE", "IMAGES", "FILE", "PATH|latest|RUN_ID")
RUN = "RUN"
# A run is a folder, or a word that stands for one; `dir` in the name makes bash put a slash after a folder.
OF_RUNS = {
    "bash": """
_tlx_run_dirs() { compgen -W "latest best" -- "$1"; compgen -d -- "$1"; }
""",
    "zsh": """
_tlx_run_dirs() { _alternative 'words:run:(latest best)' 'folders:folder:_files -/'; }
""",
}
RUNS = {"bash": "_tlx_run_dirs", "zsh": "_tlx_run_dirs", "tcsh": "d"}


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("completion", help='complete verbs, options and paths: eval "$(tlx completion bash)"')
    parser.add_argument("shell", choices=SHELLS, help="whose script is printed")
    parser.set_defaults(verb=_completion)


def _completion(options: argparse.Namespace) -> None:
    import shtab

    for action in _actions(options.parser):
        name = action.metavar
        if name == RUN:
            action.complete = RUNS  # type: ignore[attr-defined] - where shtab looks
        elif name in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif name in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(options.parser, options.shell, preamble=OF_RUNS.get(options.shell, "")))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
