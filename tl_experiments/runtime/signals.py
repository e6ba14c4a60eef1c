"""SIGTERM ends a run as Ctrl-C does: by an exception that unwinds every `with`, so that the run's status stays true.

Where an exception from nowhere would do harm, a block is shielded: the signal waits, and a loop inside the block asks
for it between two steps, saves, and obeys. A block that does not ask is interrupted after `PATIENCE_SECONDS`.
"""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

PR_SET_PDEATHSIG = 1  # of Linux's prctl
PATIENCE_SECONDS = 10.0  # for a shielded block; whoever sends SIGTERM often sends SIGKILL after 30


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it is no `Exception`, so that nothing swallows it."""


class Preempted(Terminated):
    """SIGUSR2 arrived, by which clusters warn of the end; whoever sent it is going to run this again."""


class StoppedTogether(Terminated):
    """Another process of the same run was told to stop, and all stop after the same step."""


class _Shield:
    """How many `shielded` blocks are open, which signal waits, whether one has done its work, and all that came."""

    depth = 0
    waiting: int | None = None
    obeyed = False
    heard: ClassVar[list[int]] = []


def _raise(signum: int) -> None:
    _Shield.waiting, _Shield.obeyed = None, True
    _set_timer(0)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise (Preempted if signum == signal.SIGUSR2 else Terminated)(f"received {signal.Signals(signum).name}")


def _handle(signum: int, _frame: FrameType | None) -> None:
    _Shield.heard.append(signum)
    if _joins(_Shield.heard):
        if _Shield.waiting is not None:
            _Shield.waiting = signal.SIGUSR2
            return
        if signum == signal.SIGTERM:  # `Preempted` is on its way
            return
    if _Shield.depth and _Shield.waiting is None and not _Shield.obeyed:
        _Shield.waiting = signum
        _set_timer(PATIENCE_SECONDS)
    else:  # a second signal does not wait
        _raise(signum)


def _joins(heard: Sequence[int]) -> bool:
    """Whether the last signal only belongs to the one before: clusters send both SIGUSR2 and SIGTERM."""
    return sorted(heard) == sorted((signal.SIGUSR2, signal.SIGTERM))


def _lose_patience(_signum: int, _frame: FrameType | None) -> None:
    if _Shield.waiting is not None:
        _raise(_Shield.waiting)


def _set_timer(seconds: float) -> None:
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, SIGUSR2 into `Preempted` and SIGINT into KeyboardInterrupt inside the block.

    Outside the main thread signals are left as they are, and so is one that the shell wants ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, _handle) for number in heard}
    if hasattr(signal, "SIGALRM"):
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, _lose_patience)
    try:
        yield
    finally:
        _set_timer(0)
        _Shield.depth, _Shield.waiting, _Shield.obeyed = 0, None, False
        _Shield.heard.clear()
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
        if _Shield.depth == 0:
            obey()


def stop_asked() -> bool:
    """Whether a signal waits for the shielded block that asks."""
    return _Shield.waiting is not None


def wait_longer() -> None:
    """Have a signal that waits be patient anew: what is done next is done for it."""
    if _Shield.waiting is not None:
        _set_timer(PATIENCE_SECONDS)


def forget_stop() -> None:
    """Have a signal that waits be done with: whoever calls it stops by an exception of its own."""
    if _Shield.waiting is not None:
        _Shield.waiting, _Shield.obeyed = None, True
        _set_timer(0)


def obey() -> None:
    """Let a signal that waits do its work now."""
    if _Shield.waiting is not None:
        _raise(_Shield.waiting)


def tell_stopped(error: KeyboardInterrupt | Terminated) -> int:
    """Say on standard error that a command was stopped, and return its exit code."""
    told, code = ("interrupted by Ctrl-C", 130) if isinstance(error, KeyboardInterrupt) else (str(error), 143)
    sys.stderr.write(f"error: {told}\n")
    return code


def leave_signals_to_parent() -> None:
    """Have this helper process ignore SIGINT and SIGTERM, which a terminal or a cluster sends to all of a group.

    It ends when its parent does, which may want it to finish a batch first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


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
