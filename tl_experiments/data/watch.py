"""Where long work is told of."""

from collections.abc import Callable
from typing import Protocol

from tl_experiments.runtime.signals import obey

Work = Callable[[str], Callable[[int, int], None]]  # given a title, returns a callback (done, total)


class Watch(Protocol):
    """Told of what takes long, and of what a user should know."""

    def notice(self, text: str) -> None: ...

    def work(self, title: str) -> Callable[[int, int], None]: ...


class Unwatched:
    """The null twin, for processes that nobody looks at; what goes on in parts still ends when it is asked to stop."""

    def notice(self, text: str) -> None: ...

    def work(self, title: str) -> Callable[[int, int], None]:  # noqa: ARG002 - nobody reads it
        return lambda _done, _total: obey()


UNWATCHED = Unwatched()
