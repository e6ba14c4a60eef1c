"""--help that tells many verbs by what they are for."""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MOST_WIDTH = 110  # columns
NAME_WIDTH = 28  # before what is said of an argument


def help_formatter(prog: str) -> argparse.HelpFormatter:
    """Return what lays out a help as wide as the terminal, but not so wide that lines are hard to read."""
    width = min(shutil.get_terminal_size().columns - 2, MOST_WIDTH)
    return argparse.HelpFormatter(prog, max_help_position=NAME_WIDTH, width=width)


class RoomyParser(argparse.ArgumentParser):
    """A parser whose help takes as many columns as there are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": help_formatter, **options})


class GroupedParser(RoomyParser):
    """A parser of verbs, which its help shows in groups."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._groups: dict[str, Sequence[argparse.Action]] = {}

    @contextmanager
    def group(self, title: str, verbs: "argparse._SubParsersAction[Any]") -> Iterator[None]:
        """Show the verbs that are added meanwhile under a title."""
        before = len(verbs._choices_actions)
        yield
        self._groups[title] = verbs._choices_actions[before:]

    def format_help(self) -> str:
        formatter = help_formatter(self.prog)
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, actions in self._groups.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        return formatter.format_help()
