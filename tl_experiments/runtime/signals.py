"""SIGTERM ends a run as Ctrl-C does: by an exception that unwinds every `with`, so that the run's status stays true."""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it is no `Exception`, so that nothing swallows it."""


class _Shield:
    """How many `shielded` blocks are open, and which signal came while one was."""

    depth = 0
    waiting: int | None = None


def _raise(signum: int) -> None:
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(f"received {signal.Signals(signum).name}")


def _handle(signum: int, _frame: FrameType | None) -> None:
    if _Shield.depth and _Shield.waiting is None:
        _Shield.waiting = signum
    else:  # a second signal does not wait
        _raise(signum)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` and SIGINT into KeyboardInterrupt inside the block.

    Outside the main thread signals are left as they are, and so is one that the shell wants ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, _handle) for number in heard}
    try:
        yield
    finally:
        _Shield.depth, _Shield.waiting = 0, None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Let the block end before a signal does its work; a second signal interrupts it all the same.

    For code that an exception from nowhere would leave broken, such as a transaction of a database.
    """
    _Shield.depth += 1
    try:
        yield
    finally:
        _Shield.depth -= 1
        if _Shield.depth == 0 and _Shield.waiting is not None:
            signum, _Shield.waiting = _Shield.waiting, None
            _raise(signum)


def die_with_parent() -> None:
    """Have this child of `multiprocessing` killed when the process that wanted it is gone, whatever it is doing then.

    Linux kills it although it may be busy in a library; a thread covers other systems, and a parent that died before.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("only a child of multiprocessing has a parent to die with")
    threading.Thread(target=_die_after, args=(parent.sentinel,), daemon=True).start()


def _die_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
