"""Where long work is told of."""

from collections.abc import Callable
from typing import Protocol

Work = Callable[[str], Callable[[int, int], None]]  # given a title, returns a callback (done, total)


class Watch(Protocol):
    """Told of what takes long, and of what a user should know."""

    def notice(self, text: str) -> None: ...

    def work(self, title: str) -> Callable[[int, int], None]: ...


class Unwatched:
    """Listens to nothing."""

    def notice(self, text: str) -> None: ...

    def work(self, title: str) -> Callable[[int, int], None]:  # noqa: ARG002 - nobody reads it
        return lambda *_: None


UNWATCHED = Unwatched()
